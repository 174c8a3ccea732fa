// ScatterAddRows without float atomics: a stable counting sort puts the rows into buckets of targets, of about as many rows as a warp
// looks at; then the first row of each target in its bucket adds all of them in their order. The order of every sum is that of the rows,
// whatever the grid.
#include <cuda_pipeline.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/cuda/counting_sort.cuh"
#include "kernels/cuda/row_parts.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/rows.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kResident = 6, kAhead = 8;  ///< blocks that add on a multiprocessor; rows that a thread has under way
constexpr unsigned kAllLanes = 0xffffffffu;

/// A row, where it goes (-1: nowhere), and the bucket of that.
struct alignas(16) Way {
  int target, row, bucket;
};
constexpr std::int64_t kWayInts = sizeof(Way) / sizeof(int);

/// The list before it is sorted: targets in buckets 0 .. buckets - 1, rows that go nowhere in the one after these.
struct FromIndex {
  const int* index;
  int num_targets, buckets;
  __device__ Way operator()(int i) const {
    const int target = index[i];
    if (target >= num_targets) __trap();  // a target that is not there: the caller's mistake must not pass for data
    return target < 0 ? Way{-1, i, buckets} : Way{target, i, target % buckets};
  }
};

struct FromWays {
  const Way* ways;
  __device__ Way operator()(int i) const { return ways[i]; }
};

template <class From>
struct DigitOf {
  From from;
  int shift, mask;
  __device__ int operator()(int i) const { return from(i).bucket >> shift & mask; }
};

template <class From>
struct WriteWay {
  From from;
  Way* ways;
  __device__ void operator()(int i, int place) const { ways[place] = from(i); }
};

template <class From>
void sort_by_digit(Stream& stream, std::int64_t rows, From from, int shift, int bits, Way* to) {
  const int num_keys = 1 << bits;
  stable_counting_sort(stream, ScatterAddRows::kName, rows, num_keys, DigitOf<From>{from, shift, num_keys - 1}, WriteWay<From>{from, to},
                       nullptr);
}

/// Buckets of about as many rows as a warp looks at, and no more than there are targets.
int bucket_bits(std::int64_t rows, std::int64_t num_targets) {
  const auto wanted = static_cast<std::uint64_t>(std::min(rows / kWarp, num_targets));
  return std::max(1, static_cast<int>(std::bit_width(wanted)) - 1);
}

/// The ways of the rows by bucket, then by row; in one half of `buffers` [2, rows].
const Way* sort_ways(Stream& stream, const ScatterAddRows& args, int bits, Way* buffers) {
  constexpr int kMostBits = 9;
  const std::int64_t rows = args.d_y.shape[0];
  const int passes = (bits + kMostBits - 1) / kMostBits, bits_of_pass = (bits + passes - 1) / passes;
  Way* sorted = buffers;
  const FromIndex from{args.index.as<std::int32_t>(), static_cast<int>(args.d_x.shape[0]), (1 << bits) - 1};
  sort_by_digit(stream, rows, from, 0, bits_of_pass, sorted);
  for (int pass = 1; pass < passes; ++pass) {
    Way* const to = sorted == buffers ? buffers + rows : buffers;
    sort_by_digit(stream, rows, FromWays{sorted}, pass * bits_of_pass, bits_of_pass, to);
    sorted = to;
  }
  return sorted;
}

/// The sorted ways as a warp looks at them: 32 from a place on, one a lane. All lanes call.
struct Window {
  const Way* ways;
  std::int64_t rows;

  __device__ Way at(std::int64_t first) const {
    const std::int64_t place = first + threadIdx.x % kWarp;
    return place >= 0 && place < rows ? ways[place] : Way{-1, 0, -1};
  }
};

/// What is added together: one target's ways, which lie among those of its bucket.
struct Sought {
  int target, bucket;

  /// Whether the bucket goes on past these ways.
  __device__ bool is_open(Way seen) const { return __all_sync(kAllLanes, seen.bucket == bucket); }
  /// The lanes with a way to the target.
  __device__ unsigned among(Way seen) const { return __ballot_sync(kAllLanes, seen.target == target); }
};

/// Whether a way before `place` has the target; `seen`: the window that ends there.
__device__ inline bool is_behind_another(const Window& window, const Sought& sought, std::int64_t place, Way seen) {
  for (std::int64_t first = place - kWarp;;) {
    if (sought.among(seen) != 0) return true;
    if (!sought.is_open(seen)) return false;
    first -= kWarp;
    seen = window.at(first);
  }
}

/// The rows of a target in their order, from its first place on. All lanes of a warp call.
class RowsOfTarget {
 public:
  __device__ RowsOfTarget(const Window& window, const Sought& sought, std::int64_t place, Way seen)
      : window_(window), sought_(sought), at_(place) {
    look(seen);
  }
  /// -1 after the last.
  __device__ int next() {
    while (left_ == 0) {
      if (!open_) return -1;
      at_ += kWarp;
      look(window_.at(at_));
    }
    const int lane = __ffs(static_cast<int>(left_)) - 1;
    left_ &= left_ - 1;
    return __shfl_sync(kAllLanes, row_, lane);
  }

 private:
  __device__ void look(Way seen) {
    row_ = seen.row;
    left_ = sought_.among(seen);
    open_ = sought_.is_open(seen);
  }

  const Window& window_;
  const Sought& sought_;
  std::int64_t at_;
  int row_;        ///< of this lane's way
  unsigned left_;  ///< lanes whose rows are still to come
  bool open_;
};

/// Begins to copy a part into shared memory, as part of the thread's open group.
template <class T, int Width>
__device__ inline void fetch(Part<T, Width>* to, const T* from) {
  if constexpr (sizeof(*to) >= 4) {
    __pipeline_memcpy_async(to, from, sizeof(*to));
  } else {
    *to = load_part<T, Width>(from);
  }
}

/// blockDim.x threads, whole warps, for each place among the sorted ways. Those of a target's first place add all its rows, of which
/// kAhead are under way to shared memory: frequent targets have hundreds. What a thread copies it alone reads.
template <class T, int Width>
__global__ void __launch_bounds__(kThreads, kResident)
    add_kernel(const T* d_y, const Way* ways, std::int64_t rows, float* d_x, std::int64_t width) {
  constexpr int kFloats = Width < 4 ? Width : 4;
  __shared__ Part<T, Width> parts[kAhead][kThreads];
  const auto thread = threadIdx.y * blockDim.x + threadIdx.x;
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (place >= rows) return;
  await_kernel_before();
  const Window window{ways, rows};
  const Way start = window.at(place), before = window.at(place - kWarp);  // both under way at once
  const int target = __shfl_sync(kAllLanes, start.target, 0);
  if (target < 0) return;
  const Sought sought{target, __shfl_sync(kAllLanes, start.bucket, 0)};
  if (is_behind_another(window, sought, place, before)) return;
  for (std::int64_t left = 0; left < width; left += blockDim.x * Width) {
    const std::int64_t column = left + threadIdx.x * Width;
    const bool inside = column < width;
    float* const to = d_x + target * width + column;
    RowsOfTarget list(window, sought, place, start);
    int fetched = 0;
    bool more = true;
    const auto fetch_next = [&] {
      const int row = list.next();
      more = row >= 0;
      if (!more) return;
      if (inside) fetch<T, Width>(&parts[fetched % kAhead][thread], d_y + row * width + column);
      __pipeline_commit();
      ++fetched;
    };
    float sum[Width] = {};
    if (inside) {
#pragma unroll
      for (int i = 0; i < Width; i += kFloats) {
        const auto part = load_part<float, kFloats>(to + i);
#pragma unroll
        for (int j = 0; j < kFloats; ++j) sum[i + j] = part.at[j];
      }
    }
#pragma unroll 1
    while (more && fetched < kAhead - 1) fetch_next();
#pragma unroll 1
    for (int added = 0; added < fetched; ++added) {
      if (more) fetch_next();
      if (more) {
        __pipeline_wait_prior(kAhead - 1);
      } else {
        __pipeline_wait_prior(0);
      }
      if (!inside) continue;
      const Part<T, Width> part = parts[added % kAhead][thread];
#pragma unroll
      for (int c = 0; c < Width; ++c) sum[c] += to_float(part.at[c]);
    }
    if (!inside) continue;
#pragma unroll
    for (int i = 0; i < Width; i += kFloats) {
      Part<float, kFloats> part;
#pragma unroll
      for (int j = 0; j < kFloats; ++j) part.at[j] = sum[i + j];
      store_part(to + i, part);
    }
  }
}

template <class T, int Width>
void launch_add(Stream& stream, const ScatterAddRows& args, const Way* ways) {
  const std::int64_t rows = args.d_y.shape[0], width = args.d_y.shape[1];
  const unsigned lanes = std::max<unsigned>(kWarp, lanes_for(width / Width, kThreads));
  const dim3 threads(lanes, kThreads / lanes);
  const auto blocks = static_cast<unsigned>((rows + threads.y - 1) / threads.y);
  launch_early(stream, args.kName, add_kernel<T, Width>, blocks, threads, 0, static_cast<const T*>(args.d_y.data), ways, rows,
               args.d_x.as<float>(), width);
}

void scatter_add_rows(Stream& stream, const ScatterAddRows& args) {
  const std::int64_t rows = args.d_y.shape[0], num_targets = args.d_x.shape[0], width = args.d_x.shape[1];
  if (args.d_y.empty()) return;
  HADAL_CHECK(num_targets < std::numeric_limits<std::int32_t>::max(), "{} targets", num_targets);
  const int bits = bucket_bits(rows, num_targets);
  Tensor buffers = Tensor::empty({2 * rows, kWayInts}, DType::kI32, stream.device());
  const Way* const ways = sort_ways(stream, args, bits, reinterpret_cast<Way*>(buffers.as<std::int32_t>()));
  visit(args.d_y.dtype, [&]<class T>() {
    const bool vectors = aligned16(static_cast<const T*>(args.d_y.data), width) && reinterpret_cast<std::uintptr_t>(args.d_x.data) % 16 == 0;
    if (vectors) {
      launch_add<T, Vec16<T>::kCount>(stream, args, ways);
    } else {
      launch_add<T, 1>(stream, args, ways);
    }
  });
  check_launch(ScatterAddRows::kName);
}

const RegisterCuda<ScatterAddRows> registered{scatter_add_rows};

}  // namespace
}  // namespace hadal::kernels::cuda
