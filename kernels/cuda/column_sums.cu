#include "kernels/cuda/check.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/early_launch.cuh"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

// A group reads 32 bytes of a row, a sector: many groups, since each waits for memory a few times in a row.
constexpr int kColumns = 8, kGroups = 32;

/// Each group of a column adds a range of the rows, then the groups are added in order.
__global__ __launch_bounds__(kColumns* kGroups) void add_kernel(int64_t rows, int64_t width, const float* partials, float* sums) {
  __shared__ float of_groups[kGroups][kColumns];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  let_next_kernel_come();
  await_kernel_before();
  const int64_t each = (rows + kGroups - 1) / kGroups, begin = threadIdx.y * each, end = min(begin + each, rows);
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int64_t row = begin; row < end; ++row) sum += partials[row * width + column];
  }
  of_groups[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
#pragma unroll
  for (int group = 1; group < kGroups; ++group) sum += of_groups[group][threadIdx.x];
  sums[column] += sum;
}

}  // namespace

void add_column_sums(Stream& stream, const char* op, const float* partials, int64_t rows, int64_t width, float* sums) {
  launch_early(stream, op, add_kernel, static_cast<unsigned>((width + kColumns - 1) / kColumns), {kColumns, kGroups}, 0, rows, width, partials, sums);
}

}  // namespace hadal::kernels::cuda
