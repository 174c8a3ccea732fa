// One row of logits by one block, read once from memory: the greatest entry, its lowest column and the sum of exponentials in one
// pass, while the row (as much of it as fits) is kept in shared memory for the second pass, which writes it over.
//
// Every thread sees the same pieces in both passes, so what it keeps is its own and needs no barrier. Sums are ordered: a thread's
// columns, the lanes of a warp, the warps.
#pragma once

#include <cfloat>

#include "kernels/cuda/floats.cuh"

namespace hadal::kernels::cuda {

struct SoftmaxRow {
  float top = -FLT_MAX;  ///< greatest logit; lower than any, but finite, so that differences are numbers
  float sum = 0;         ///< of exp(logit - top)
  int column = 0;        ///< the lowest one of the greatest logit
};

template <class T>
__device__ inline SoftmaxRow merged(const SoftmaxRow& a, const SoftmaxRow& b) {
  const bool second = b.top > a.top || (b.top == a.top && b.column < a.column);
  const float top = second ? b.top : a.top;
  return {top, a.sum * exponential<T>(a.top - top) + b.sum * exponential<T>(b.top - top), second ? b.column : a.column};
}

/// The block's rows together, the same on every thread. Has barriers.
template <class T, int Threads>
__device__ inline SoftmaxRow block_merged(SoftmaxRow row) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) {
    const SoftmaxRow other{__shfl_down_sync(0xffffffffu, row.top, lane), __shfl_down_sync(0xffffffffu, row.sum, lane),
                           __shfl_down_sync(0xffffffffu, row.column, lane)};
    row = merged<T>(row, other);
  }
  __shared__ SoftmaxRow warps[Threads / kWarp];
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = row;
  __syncthreads();
  row = warps[0];
  for (int warp = 1; warp < Threads / kWarp; ++warp) row = merged<T>(row, warps[warp]);
  return row;
}

/// First pass over `columns` logits in pieces of N; the first `kept` pieces are also put into `keep`.
template <class T, int N, int Threads>
__device__ inline SoftmaxRow softmax_of(const T* logits, int columns, Pack<T, N>* keep, int kept) {
  SoftmaxRow row{.column = columns - 1};
  const int pieces = columns / N;
#pragma unroll 4
  for (int p = static_cast<int>(threadIdx.x); p < pieces; p += Threads) {
    const Pack<T, N> pack = load_pack<N>(logits + static_cast<std::int64_t>(p) * N);
    if (p < kept) keep[p] = pack;
    const Floats<N> values = floats_of(pack);
    float top = values.at[0];
#pragma unroll
    for (int i = 1; i < N; ++i) top = fmaxf(top, values.at[i]);
    if (top > row.top) {
      row.sum *= exponential<T>(row.top - top);
      row.top = top;
#pragma unroll
      for (int i = N - 1; i >= 0; --i) {
        if (values.at[i] == top) row.column = p * N + i;
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) row.sum += exponential<T>(values.at[i] - row.top);
  }
  // What is left of a row whose width is no multiple of a piece.
  for (int column = pieces * N + static_cast<int>(threadIdx.x); column < columns; column += Threads) {
    const float value = to_float(logits[column]);
    if (value > row.top) {
      row.sum *= exponential<T>(row.top - value);
      row.top = value;
      row.column = column;
    }
    row.sum += exponential<T>(value - row.top);
  }
  return block_merged<T, Threads>(row);
}

/// Second pass: logits[column] = value_of(logit, column), in place.
template <class T, int N, int Threads, class ValueOf>
__device__ inline void overwrite_row(T* logits, int columns, const Pack<T, N>* keep, int kept, ValueOf value_of) {
  const int pieces = columns / N;
#pragma unroll 4
  for (int p = static_cast<int>(threadIdx.x); p < pieces; p += Threads) {
    T* const at = logits + static_cast<std::int64_t>(p) * N;
    Floats<N> values = floats_of(p < kept ? keep[p] : load_pack<N>(at));
#pragma unroll
    for (int i = 0; i < N; ++i) values.at[i] = value_of(values.at[i], p * N + i);
    store_floats(at, values);
  }
  for (int column = pieces * N + static_cast<int>(threadIdx.x); column < columns; column += Threads) {
    logits[column] = from_float<T>(value_of(to_float(logits[column]), column));
  }
}

}  // namespace hadal::kernels::cuda
