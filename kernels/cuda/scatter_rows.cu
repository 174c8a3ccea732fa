// ScatterAddRows without float atomics: the pairs (target, r) are sorted by target with a stable radix sort, then each target's rows are
// added in their order by the threads of one row. The order of every sum is that of the rows, whatever the grid.
#include <algorithm>
#include <bit>
#include <limits>

#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/check.h"
#include "kernels/cuda/row_parts.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/rows.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// Targets as they are sorted: what goes nowhere comes last.
__global__ void __launch_bounds__(kThreads) targets_kernel(const int* index, int rows, int num_targets, std::uint32_t* targets, std::uint32_t* row) {
  const int r = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (r >= rows) return;
  if (index[r] >= num_targets) __trap();  // a target that is not there: the caller's mistake
  targets[r] = static_cast<std::uint32_t>(index[r] < 0 ? num_targets : index[r]);
  row[r] = static_cast<std::uint32_t>(r);
}

/// blockDim.x threads for each place among the sorted pairs. Those of a target's first place add all its rows.
template <class T, int Width>
__global__ void __launch_bounds__(kThreads) add_kernel(const T* d_y, const std::uint32_t* targets, const std::uint32_t* row, std::int64_t rows,
                                                       std::uint32_t num_targets, float* d_x, std::int64_t width) {
  constexpr int kAtOnce = 8, kFloats = Width < 4 ? Width : 4;
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (place >= rows) return;
  const std::uint32_t target = targets[place];
  if (target == num_targets || (place > 0 && targets[place - 1] == target)) return;
  float* const to = d_x + target * width;
  for (std::int64_t column = threadIdx.x * Width; column < width; column += blockDim.x * Width) {
    float sum[Width];
#pragma unroll
    for (int i = 0; i < Width; i += kFloats) {
      const auto part = load_part<float, kFloats>(to + column + i);
#pragma unroll
      for (int j = 0; j < kFloats; ++j) sum[i + j] = part.at[j];
    }
    for (std::int64_t first = place; first < rows && targets[first] == target; first += kAtOnce) {
      Part<T, Width> part[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const bool mine = first + j < rows && targets[first + j] == target;
        part[j] = mine ? load_part<T, Width>(d_y + row[first + j] * width + column) : Part<T, Width>{};
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
        for (int i = 0; i < Width; ++i) sum[i] += to_float(part[j].at[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < Width; i += kFloats) {
      Part<float, kFloats> part;
#pragma unroll
      for (int j = 0; j < kFloats; ++j) part.at[j] = sum[i + j];
      store_part(to + column + i, part);
    }
  }
}

template <class T, int Width>
void launch_add(Stream& stream, const ScatterAddRows& args, const std::uint32_t* targets, const std::uint32_t* row) {
  const std::int64_t rows = args.d_y.shape[0], width = args.d_y.shape[1];
  const unsigned lanes = lanes_for(width / Width, kThreads);
  const dim3 threads(lanes, kThreads / lanes);
  const auto blocks = static_cast<unsigned>((rows + threads.y - 1) / threads.y);
  add_kernel<T, Width><<<blocks, threads, 0, native(stream)>>>(static_cast<const T*>(args.d_y.data), targets, row, rows,
                                                               static_cast<std::uint32_t>(args.d_x.shape[0]), args.d_x.as<float>(), width);
}

void scatter_add_rows(Stream& stream, const ScatterAddRows& args) {
  const std::int64_t rows = args.d_y.shape[0], num_targets = args.d_x.shape[0], width = args.d_x.shape[1];
  if (args.d_y.empty()) return;
  HADAL_CHECK(std::max(rows, num_targets) < std::numeric_limits<std::int32_t>::max(), "{} rows to {}", rows, num_targets);
  const auto count = static_cast<int>(rows);
  Tensor pairs = Tensor::empty({4, rows}, DType::kI32, stream.device());
  auto* const targets = reinterpret_cast<std::uint32_t*>(pairs.as<std::int32_t>());
  std::uint32_t *const row = targets + rows, *const sorted_targets = row + rows, *const sorted_row = sorted_targets + rows;
  targets_kernel<<<(count + kThreads - 1) / kThreads, kThreads, 0, native(stream)>>>(args.index.as<std::int32_t>(), count,
                                                                                     static_cast<int>(num_targets), targets, row);
  check_launch(ScatterAddRows::kName);
  const int bits = std::bit_width(static_cast<std::uint32_t>(num_targets));
  std::size_t bytes = 0;
  check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, targets, sorted_targets, row, sorted_row, count, 0, bits, native(stream)),
        ScatterAddRows::kName);
  Tensor scratch = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kU8, stream.device());
  check(cub::DeviceRadixSort::SortPairs(scratch.view().data, bytes, targets, sorted_targets, row, sorted_row, count, 0, bits, native(stream)),
        ScatterAddRows::kName);
  visit(args.d_y.dtype, [&]<class T>() {
    const bool vectors = aligned16(static_cast<const T*>(args.d_y.data), width) && reinterpret_cast<std::uintptr_t>(args.d_x.data) % 16 == 0;
    if (vectors) {
      launch_add<T, Vec16<T>::kCount>(stream, args, sorted_targets, sorted_row);
    } else {
      launch_add<T, 1>(stream, args, sorted_targets, sorted_row);
    }
  });
  check_launch(ScatterAddRows::kName);
}

const RegisterCuda<ScatterAddRows> registered{scatter_add_rows};

}  // namespace
}  // namespace hadal::kernels::cuda
