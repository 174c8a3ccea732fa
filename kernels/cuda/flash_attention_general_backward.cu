// Gradients of flash attention for any head dims, in f32 on the plain pipes: d_q from 16 rows of (token, head of the group) against
// tiles of 64 keys; d_k and d_v from 16 keys against tiles of 64 such rows. Each sum belongs to one block, so nothing is added across
// blocks and the same bits come out of each run.
#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention_general.cuh"
#include "kernels/cuda/flash_attention_paths.h"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

using namespace general;

template <class T, int NK>
__global__ void __launch_bounds__(kThreads) queries_kernel(AttentionSizes sizes, Strided<const T> q, Keys<T> k, Strided<const T> v,
                                                           Strided<const T> d_o, const float* statistics, Strided<T> d_q) {
  extern __shared__ float4 shared_memory[];
  float* const queries = reinterpret_cast<float*>(shared_memory);
  float* const d_outputs = queries + kRows * padded_width(sizes.width);
  float* const d_scores = d_outputs + kRows * padded_width(sizes.value_width);
  float* const chunk = d_scores + kWeightFloats;

  const Rows rows(sizes);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int last = min(first + kRows, rows.count()) - 1;
  const int column = static_cast<int>(threadIdx.x) % kColumns, half = static_cast<int>(threadIdx.x) / kColumns * kHalf;
  load_rows(queries, sizes.width, last - first + 1, sizes.scale * kLog2E,
            [&](int r, int i) { return to_float(q.at(rows.global_token(first + r), rows.head(first + r))[i]); });
  load_rows(d_outputs, sizes.value_width, last - first + 1, 1.0f,
            [&](int r, int i) { return to_float(d_o.at(rows.global_token(first + r), rows.head(first + r))[i]); });
  float row_lse[kHalf], row_delta[kHalf];
#pragma unroll
  for (int r = 0; r < kHalf; ++r) {
    const int row = min(first + half + r, last);
    row_lse[r] = statistics[rows.statistics(row)];
    row_delta[r] = statistics[rows.statistics(row) + kStatisticsTile];
  }
  float sums[kRows][NK] = {};
  const int end = sizes.end_of(rows.token(last));
  for (int j0 = sizes.begin_of(rows.token(first)); j0 < end; j0 += kColumns) {
    const int count = min(kColumns, end - j0);
    float dots[kHalf], d_dots[kHalf];
    const auto key = [&](int c, int i) { return k(rows.key(j0 + c), rows.kv, i); };
    dot_tile(queries, sizes.width, count, chunk, dots, key);
    dot_tile(d_outputs, sizes.value_width, count, chunk, d_dots, [&](int c, int i) { return to_float(v.at(rows.key(j0 + c), rows.kv)[i]); });
#pragma unroll
    for (int r = 0; r < kHalf; ++r) {
      const bool seen = rows.sees(first + half + r, j0 + column);
      d_scores[column * kWeightStride + half + r] = seen ? exp2f(dots[r] - row_lse[r]) * (d_dots[r] - row_delta[r]) : 0.0f;
    }
    __syncthreads();
    accumulate(d_scores, sizes.width, count, sums, key);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r > last) continue;
#pragma unroll
    for (int n = 0; n < NK; ++n) {
      const int i = n * kThreads + static_cast<int>(threadIdx.x);
      if (i < sizes.width) d_q.at(rows.global_token(first + r), rows.head(first + r))[i] = from_float<T>(sums[r][n] * sizes.scale);
    }
  }
}

template <class T>
__device__ void put(T* to, float x, bool add) {
  *to = from_float<T>(add ? to_float(*to) + x : x);
}

template <class T, int NK, int NV>
__global__ void __launch_bounds__(kThreads)
    keys_kernel(AttentionSizes sizes, Strided<const T> q, Keys<T> k, Strided<const T> v, Strided<const T> d_o, const float* statistics,
                Strided<T> d_k, float* d_k_shared, Strided<T> d_v, bool add) {
  extern __shared__ float4 shared_memory[];
  float* const keys = reinterpret_cast<float*>(shared_memory);
  float* const values = keys + kRows * padded_width(sizes.width);
  float* const probabilities = values + kRows * padded_width(sizes.value_width);
  float* const d_scores = probabilities + kWeightFloats;
  float* const chunk = d_scores + kWeightFloats;

  const Rows rows(sizes);
  const int first = static_cast<int>(blockIdx.x) * kRows;  // the first keys are seen by most queries
  const int last = min(first + kRows, sizes.keys) - 1;
  const int column = static_cast<int>(threadIdx.x) % kColumns, half = static_cast<int>(threadIdx.x) / kColumns * kHalf;
  load_rows(keys, sizes.width, last - first + 1, sizes.scale * kLog2E, [&](int r, int i) { return k(rows.key(first + r), rows.kv, i); });
  load_rows(values, sizes.value_width, last - first + 1, 1.0f, [&](int r, int i) { return to_float(v.at(rows.key(first + r), rows.kv)[i]); });
  float key_sums[kRows][NK] = {}, value_sums[kRows][NV] = {};
  const int end = sizes.last_query(last) * sizes.group;
  for (int r0 = sizes.first_query(first) * sizes.group; r0 < end; r0 += kColumns) {
    const int count = min(kColumns, end - r0), own = min(r0 + column, rows.count() - 1);
    const auto query = [&](int c, int i) { return to_float(q.at(rows.global_token(r0 + c), rows.head(r0 + c))[i]); };
    const auto d_output = [&](int c, int i) { return to_float(d_o.at(rows.global_token(r0 + c), rows.head(r0 + c))[i]); };
    float dots[kHalf], d_dots[kHalf];
    dot_tile(keys, sizes.width, count, chunk, dots, query);
    dot_tile(values, sizes.value_width, count, chunk, d_dots, d_output);
    const float row_lse = statistics[rows.statistics(own)], row_delta = statistics[rows.statistics(own) + kStatisticsTile];
#pragma unroll
    for (int r = 0; r < kHalf; ++r) {
      const bool seen = column < count && first + half + r <= last && rows.sees(r0 + column, first + half + r);
      const float p = seen ? exp2f(dots[r] - row_lse) : 0.0f;
      probabilities[column * kWeightStride + half + r] = p;
      d_scores[column * kWeightStride + half + r] = seen ? p * (d_dots[r] - row_delta) : 0.0f;
    }
    __syncthreads();
    accumulate(probabilities, sizes.value_width, count, value_sums, d_output);
    accumulate(d_scores, sizes.width, count, key_sums, query);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r > last) continue;
    const std::int64_t token = rows.key(first + r);
#pragma unroll
    for (int n = 0; n < NV; ++n) {
      const int i = n * kThreads + static_cast<int>(threadIdx.x);
      if (i < sizes.value_width) put(d_v.at(token, rows.kv) + i, value_sums[r][n], add);
    }
#pragma unroll
    for (int n = 0; n < NK; ++n) {
      const int i = n * kThreads + static_cast<int>(threadIdx.x);
      const float sum = key_sums[r][n] * sizes.scale;
      if (i < sizes.key_width) {
        put(d_k.at(token, rows.kv) + i, sum, add);
      } else if (i < sizes.width) {
        const std::int64_t all = std::int64_t{sizes.batch} * sizes.keys;
        d_k_shared[(rows.kv * all + token) * sizes.shared_width + i - sizes.key_width] = sum;
      }
    }
  }
}

}  // namespace

void general_backward(cudaStream_t stream, const FlashAttentionBackward& args, const float* statistics, float* shared_sums) {
  const AttentionSizes sizes(args);
  const int row_floats = padded_width(sizes.width) + padded_width(sizes.value_width);
  visit(args.q.dtype, [&]<class T>() {
    visit_widths(args.kName, sizes, [&]<int NK, int NV>() {
      const auto q = strided<T>(args.q), v = strided<T>(args.v), d_o = strided<T>(args.d_o);
      if (sizes.tokens > 0) {
        const std::size_t bytes = shared_bytes(row_floats, 1);
        allow_shared_memory(queries_kernel<T, NK>, bytes, args.kName);
        queries_kernel<T, NK><<<grid_of(sizes, sizes.tokens * sizes.group), kThreads, bytes, stream>>>(sizes, q, keys_of<T>(args), v, d_o, statistics,
                                                                                                       strided<T>(args.d_q));
      }
      if (sizes.keys > 0) {
        const std::size_t bytes = shared_bytes(row_floats, 2);
        allow_shared_memory(keys_kernel<T, NK, NV>, bytes, args.kName);
        keys_kernel<T, NK, NV><<<grid_of(sizes, sizes.keys), kThreads, bytes, stream>>>(sizes, q, keys_of<T>(args), v, d_o, statistics,
                                                                                        strided<T>(args.d_k), shared_sums, strided<T>(args.d_v),
                                                                                        args.add_to_keys);
      }
    });
  });
  check_launch(args.kName);
}

}  // namespace hadal::kernels::cuda
