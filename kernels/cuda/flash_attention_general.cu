// Flash attention for any head dims, in f32 on the plain pipes: 16 rows of (token, head of the group) against tiles of 64 keys
// forward and for d_q; 16 keys against tiles of 64 such rows for d_k and d_v. Each sum belongs to one block, so nothing is added
// across blocks and the same bits come out of each run.
#include <cmath>

#include "kernels/cuda/attention_params.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention_paths.h"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

using namespace general;

/// Element i of [k | k_shared] of one key.
template <class T>
struct Keys {
  Strided<const T> own, shared;
  int own_width;

  __device__ float operator()(std::int64_t token, int head, int i) const {
    return to_float(i < own_width ? own.at(token, head)[i] : shared.at(token, 0)[i - own_width]);
  }
};

/// The rows of one (sequence, key head): row r is token r / group, head kv * group + r % group.
struct Rows {
  const AttentionSizes& sizes;
  int sequence, kv;

  __device__ Rows(const AttentionSizes& all) : sizes(all), sequence(blockIdx.y / all.key_heads), kv(blockIdx.y % all.key_heads) {}
  __device__ int count() const { return sizes.tokens * sizes.group; }
  __device__ int token(int row) const { return row / sizes.group; }
  __device__ std::int64_t global_token(int row) const { return std::int64_t{sequence} * sizes.tokens + token(row); }
  __device__ int head(int row) const { return kv * sizes.group + row % sizes.group; }
  __device__ std::int64_t key(int j) const { return std::int64_t{sequence} * sizes.keys + j; }
  __device__ bool sees(int row, int j) const {
    return row < count() && j >= sizes.begin_of(token(row)) && j < sizes.end_of(token(row));
  }
  /// Where the statistics of a row lie.
  __device__ std::int64_t statistics(int row) const { return statistics_at(sizes, sequence, head(row), token(row)); }
};

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

template <class T, int NV>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(AttentionSizes sizes, Strided<const T> q, Keys<T> k, Strided<const T> v, Strided<T> o, float* lse) {
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
  const int end = sizes.end_of(rows.token(last));
  for (int j0 = sizes.begin_of(rows.token(first)); j0 < end; j0 += kColumns) {
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
    const float sum = row_sum[r], inverse = sum == 0 ? 0.0f : 1.0f / sum;
#pragma unroll
    for (int n = 0; n < NV; ++n) {
      const int i = n * kThreads + static_cast<int>(threadIdx.x);
      if (i < sizes.value_width) o.at(rows.global_token(row), rows.head(row))[i] = from_float<T>(sums[r][n] * inverse);
    }
    if (threadIdx.x == 0) {
      lse[rows.global_token(row) * sizes.heads + rows.head(row)] = sum == 0 ? -INFINITY : row_max[r] * kLn2 + logf(sum);
    }
  }
}

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

/// Calls body.template operator()<NK, NV>() with enough columns per thread for both widths.
template <class Body>
void visit_widths(const char* op, const AttentionSizes& sizes, Body&& body) {
  if (sizes.width <= kThreads && sizes.value_width <= kThreads) {
    body.template operator()<1, 1>();
  } else if (sizes.width <= 2 * kThreads && sizes.value_width <= 2 * kThreads) {
    body.template operator()<2, 2>();
  } else {
    HADAL_CHECK(sizes.width <= 5 * kThreads && sizes.value_width <= 4 * kThreads, "{}: head dims {} and {}, at most 640 and 512 on CUDA", op,
                sizes.width, sizes.value_width);
    body.template operator()<5, 4>();
  }
}

std::size_t shared_bytes(int row_floats, int weights) {
  return sizeof(float) * static_cast<std::size_t>(kRows * row_floats + weights * kWeightFloats + kChunkFloats);
}
dim3 grid_of(const AttentionSizes& sizes, int rows) {
  return {static_cast<unsigned>((rows + kRows - 1) / kRows), static_cast<unsigned>(sizes.batch * sizes.key_heads)};
}
template <class T, class Args>
Keys<T> keys_of(const Args& args) {
  return {strided<T>(args.k), strided<T>(args.k_shared), static_cast<int>(args.k.width)};
}

}  // namespace

void general_forward(cudaStream_t stream, const FlashAttentionForward& args) {
  const AttentionSizes sizes(args);
  const std::size_t bytes = shared_bytes(padded_width(sizes.width), 1);
  visit(args.q.dtype, [&]<class T>() {
    visit_widths(args.kName, sizes, [&]<int NK, int NV>() {
      allow_shared_memory(forward_kernel<T, NV>, bytes, args.kName);
      forward_kernel<T, NV><<<grid_of(sizes, sizes.tokens * sizes.group), kThreads, bytes, stream>>>(
          sizes, strided<T>(args.q), keys_of<T>(args), strided<T>(args.v), strided<T>(args.o), args.lse.as<float>());
    });
  });
  check_launch(args.kName);
}

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
