// ScatterAddRows without float atomics: the rows are sorted by target with a stable radix sort (counting sorts by digits of the target,
// the lowest first), then each target's rows are added in their order by the threads of one row. The order of every sum is that of the
// rows, whatever the grid.
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
constexpr unsigned kAllLanes = 0xffffffffu;

/// A row and where it goes; num_targets: nowhere.
struct alignas(8) Way {
  int target, row;
};

/// The list before it is sorted.
struct FromIndex {
  const int* index;
  int num_targets;
  __device__ Way operator()(int i) const {
    const int target = index[i];
    if (target >= num_targets) __trap();  // a target that is not there: the caller's mistake must not pass for data
    return {target < 0 ? num_targets : target, i};
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
  __device__ int operator()(int i) const { return from(i).target >> shift & mask; }
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
  stable_counting_sort(stream, ScatterAddRows::kName, rows, num_keys, DigitOf<From>{from, shift, num_keys - 1}, WriteWay<From>{from, to}, nullptr);
}

/// The ways of the rows by target, then by row; in one half of `buffers` [2, rows].
const Way* sort_ways(Stream& stream, const int* index, std::int64_t rows, std::int64_t num_targets, Way* buffers) {
  constexpr int kMostBits = 9;
  const int bits = std::bit_width(static_cast<std::uint64_t>(num_targets)), passes = (bits + kMostBits - 1) / kMostBits;
  const int bits_of_pass = (bits + passes - 1) / passes;
  Way* sorted = buffers;
  sort_by_digit(stream, rows, FromIndex{index, static_cast<int>(num_targets)}, 0, bits_of_pass, sorted);
  for (int pass = 1; pass < passes; ++pass) {
    Way* const to = sorted == buffers ? buffers + rows : buffers;
    sort_by_digit(stream, rows, FromWays{sorted}, pass * bits_of_pass, bits_of_pass, to);
    sorted = to;
  }
  return sorted;
}

/// blockDim.x threads, whole warps, for each place among the sorted ways. Those of a target's first place add all its rows; each warp
/// looks at 32 ways at a time.
template <class T, int Width>
__global__ void __launch_bounds__(kThreads, 4)
    add_kernel(const T* d_y, const Way* ways, std::int64_t rows, int num_targets, float* d_x, std::int64_t width) {
  constexpr int kAtOnce = 4, kFloats = Width < 4 ? Width : 4;
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (place >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Way none{-1, 0}, start = place + lane < rows ? ways[place + lane] : none;
  const int target = __shfl_sync(kAllLanes, start.target, 0);
  if (target == num_targets || (place > 0 && ways[place - 1].target == target)) return;
  for (std::int64_t left = 0; left < width; left += blockDim.x * Width) {
    const std::int64_t column = left + threadIdx.x * Width;
    const bool inside = column < width;
    float* const to = d_x + target * width + column;
    float sum[Width] = {};
    if (inside) {
#pragma unroll
      for (int i = 0; i < Width; i += kFloats) {
        const auto part = load_part<float, kFloats>(to + i);
#pragma unroll
        for (int j = 0; j < kFloats; ++j) sum[i + j] = part.at[j];
      }
    }
    Way way = start;
    for (std::int64_t first = place;; first += kWarp) {
      if (first > place) way = first + lane < rows ? ways[first + lane] : none;
      const int count = __popc(__ballot_sync(kAllLanes, way.target == target));  // the first so many: the list is sorted
      for (int j = 0; j < count; j += kAtOnce) {
        Part<T, Width> part[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const std::int64_t row = __shfl_sync(kAllLanes, way.row, (j + i) % kWarp);
          part[i] = inside && j + i < count ? load_part<T, Width>(d_y + row * width + column) : Part<T, Width>{};
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
          for (int c = 0; c < Width; ++c) sum[c] += to_float(part[i].at[c]);
        }
      }
      if (count < kWarp) break;
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
  add_kernel<T, Width><<<blocks, threads, 0, native(stream)>>>(static_cast<const T*>(args.d_y.data), ways, rows, static_cast<int>(args.d_x.shape[0]),
                                                               args.d_x.as<float>(), width);
}

void scatter_add_rows(Stream& stream, const ScatterAddRows& args) {
  const std::int64_t rows = args.d_y.shape[0], num_targets = args.d_x.shape[0], width = args.d_x.shape[1];
  if (args.d_y.empty()) return;
  HADAL_CHECK(num_targets < std::numeric_limits<std::int32_t>::max(), "{} targets", num_targets);
  Tensor buffers = Tensor::empty({2 * rows, 2}, DType::kI32, stream.device());
  const Way* const ways = sort_ways(stream, args.index.as<std::int32_t>(), rows, num_targets, reinterpret_cast<Way*>(buffers.as<std::int32_t>()));
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
