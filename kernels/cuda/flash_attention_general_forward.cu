// Flash attention for any head dims, in f32 on the plain pipes: 16 rows of (token, head of the group) against tiles of 64 keys. Where
// rows are few, as in decoding, their keys are split over blocks and the parts put together in a second pass.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention_general.cuh"
#include "kernels/cuda/flash_attention_paths.h"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

using namespace general;

// Scores of the tile become probabilities; the rows' maxima, sums and the factor for what was summed before follow.
__device__ void online_softmax(float* scores, float* row_max, float* row_sum, float* row_factor) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  constexpr int kRowsOfWarp = kRows * kWarp / kThreads;
  for (int row = warp * kRowsOfWarp; row < (warp + 1) * kRowsOfWarp; ++row) {
    float& first = scores[lane * kWeightStride + row];
    float& second = scores[(lane + kWarp) * kWeightStride + row];
    const float before = row_max[row];
    const float most = fmaxf(warp_max(fmaxf(fmaxf(first, second), -INFINITY)), before);  // fmaxf drops a NaN; its probability stays
    const float base = most == -INFINITY ? 0.0f : most;
    first = exp2f(first - base);
    second = exp2f(second - base);
    const float sum = warp_sum(first + second);
    if (lane == 0) {
      const float factor = exp2f(before - base);
      row_factor[row] = factor;
      row_sum[row] = row_sum[row] * factor + sum;
      row_max[row] = most;
    }
  }
}

/// What a block writes: o and lse, or, where its rows' keys are split over gridDim.z blocks, the sums so far: f32
/// [splits, B * S * H, dv + 2], o before its division, the maximum in base 2 and the sum.
template <class T>
struct Results {
  Strided<T> o;
  float* lse;
  float* partial;
};

template <class T, int NV>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(AttentionSizes sizes, Strided<const T> q, Keys<T> k, Strided<const T> v, Results<T> to) {
  extern __shared__ float4 shared_memory[];
  float* const queries = reinterpret_cast<float*>(shared_memory);
  float* const scores = queries + kRows * padded_width(sizes.width);
  float* const chunk = scores + kWeightFloats;
  __shared__ float row_max[kRows], row_sum[kRows], row_factor[kRows];

  const Rows rows(sizes);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;  // the longest rows first
  const int last = min(first + kRows, rows.count()) - 1;
  const int column = static_cast<int>(threadIdx.x) % kColumns, half = static_cast<int>(threadIdx.x) / kColumns * kHalf;
  load_rows(queries, sizes.width, last - first + 1, sizes.scale * kLog2E,
            [&](int r, int i) { return to_float(q.at(rows.global_token(first + r), rows.head(first + r))[i]); });
  if (threadIdx.x < kRows) {
    row_max[threadIdx.x] = -INFINITY;
    row_sum[threadIdx.x] = 0;
  }
  __syncthreads();
  float sums[kRows][NV] = {};
  const int all_begin = sizes.begin_of(rows.token(first)), all_end = sizes.end_of(rows.token(last));
  const int splits = static_cast<int>(gridDim.z), tiles = (all_end - all_begin + kColumns - 1) / kColumns;
  const int part = (tiles + splits - 1) / splits * kColumns, begin = all_begin + static_cast<int>(blockIdx.z) * part;
  const int end = min(begin + part, all_end);
  for (int j0 = begin; j0 < end; j0 += kColumns) {
    const int count = min(kColumns, end - j0);
    float dots[kHalf];
    dot_tile(queries, sizes.width, count, chunk, dots, [&](int c, int i) { return k(rows.key(j0 + c), rows.kv, i); });
#pragma unroll
    for (int r = 0; r < kHalf; ++r) {
      scores[column * kWeightStride + half + r] = rows.sees(first + half + r, j0 + column) ? dots[r] : -INFINITY;
    }
    __syncthreads();
    online_softmax(scores, row_max, row_sum, row_factor);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int n = 0; n < NV; ++n) sums[r][n] *= row_factor[r];
    }
    accumulate(scores, sizes.value_width, count, sums, [&](int c, int i) { return to_float(v.at(rows.key(j0 + c), rows.kv)[i]); });
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = first + r;
    if (row > last) continue;
    const std::int64_t token = rows.global_token(row), at = token * sizes.heads + rows.head(row);
    const float sum = row_sum[r], inverse = sum == 0 ? 0.0f : 1.0f / sum;
    const std::int64_t all = std::int64_t{sizes.batch} * sizes.tokens * sizes.heads;
    float* const partial = to.partial + (blockIdx.z * all + at) * (sizes.value_width + 2);
#pragma unroll
    for (int n = 0; n < NV; ++n) {
      const int i = n * kThreads + static_cast<int>(threadIdx.x);
      if (i >= sizes.value_width) continue;
      if (splits > 1) {
        partial[i] = sums[r][n];
      } else {
        to.o.at(token, rows.head(row))[i] = from_float<T>(sums[r][n] * inverse);
      }
    }
    if (threadIdx.x > 0) continue;
    if (splits > 1) {
      partial[sizes.value_width] = row_max[r];
      partial[sizes.value_width + 1] = sum;
    } else {
      to.lse[at] = sum == 0 ? -INFINITY : row_max[r] * kLn2 + logf(sum);
    }
  }
}

// A block per (token, head): the parts in their order.
template <class T>
__global__ void combine(AttentionSizes sizes, int splits, Results<T> to) {
  const std::int64_t at = blockIdx.x, all = gridDim.x, size = sizes.value_width + 2;
  float most = -INFINITY;
  for (int part = 0; part < splits; ++part) most = fmaxf(most, to.partial[(part * all + at) * size + sizes.value_width]);
  const float base = most == -INFINITY ? 0.0f : most;
  float total = 0;
  for (int part = 0; part < splits; ++part) {
    const float* const end = to.partial + (part * all + at) * size + sizes.value_width;
    total += exp2f(end[0] - base) * end[1];
  }
  const float inverse = total == 0 ? 0.0f : 1.0f / total;
  for (int i = static_cast<int>(threadIdx.x); i < sizes.value_width; i += kThreads) {
    float sum = 0;
    for (int part = 0; part < splits; ++part) {
      const float* const own = to.partial + (part * all + at) * size;
      sum += exp2f(own[sizes.value_width] - base) * own[i];
    }
    to.o.at(at / sizes.heads, at % sizes.heads)[i] = from_float<T>(sum * inverse);
  }
  if (threadIdx.x == 0) to.lse[at] = total == 0 ? -INFINITY : most * kLn2 + logf(total);
}

/// Few rows (decoding) would leave most multiprocessors idle: their keys are split, 256 or more to a block. By sizes alone, so that the
/// same call always gives the same bits.
int splits_of(const AttentionSizes& sizes, dim3 grid) {
  constexpr int kBlocks = 264, kLeastKeys = 256, kMost = 64;
  const int blocks = static_cast<int>(grid.x * grid.y), wanted = kBlocks / blocks;
  return std::clamp(std::min(wanted, sizes.keys / kLeastKeys), 1, kMost);
}

}  // namespace

void general_forward(Stream& stream, const FlashAttentionForward& args) {
  const AttentionSizes sizes(args);
  const std::size_t bytes = shared_bytes(padded_width(sizes.width), 1);
  dim3 grid = grid_of(sizes, sizes.tokens * sizes.group);
  const int splits = splits_of(sizes, grid);
  grid.z = static_cast<unsigned>(splits);
  const std::int64_t rows = args.q.tokens * args.q.heads;
  Tensor partial = Tensor::empty({splits > 1 ? splits * rows : 0, args.v.width + 2}, DType::kF32, stream.device());
  visit(args.q.dtype, [&]<class T>() {
    const Results<T> to{strided<T>(args.o), args.lse.as<float>(), partial.as<float>()};
    visit_widths(args.kName, sizes, [&]<int NK, int NV>() {
      allow_shared_memory(forward_kernel<T, NV>, bytes, args.kName);
      forward_kernel<T, NV><<<grid, kThreads, bytes, native(stream)>>>(sizes, strided<T>(args.q), keys_of<T>(args), strided<T>(args.v), to);
    });
    if (splits > 1) combine<T><<<static_cast<unsigned>(rows), kThreads, 0, native(stream)>>>(sizes, splits, to);
  });
  check_launch(args.kName);
}

}  // namespace hadal::kernels::cuda
