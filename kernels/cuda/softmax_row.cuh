// One row of logits by one block: its greatest entry, the lowest column of it and the sum of exponentials in one pass. Pieces of
// the row that lie in shared memory belong to one thread each, which alone writes and reads them.
//
// Sums are ordered: a thread's columns, then the lanes of a warp, then the warps.
#pragma once

#include <cfloat>
#include <climits>

#include "kernels/cuda/floats.cuh"

namespace hadal::kernels::cuda {

/// What a thread, and in the end the block, has seen of a row.
struct SoftmaxRow {
  float top = -FLT_MAX;  ///< greatest logit; to begin with lower than any, but finite, so that differences are numbers
  float sum = 0;         ///< of exp(logit - top)
  int column = INT_MAX;  ///< the lowest one of the greatest logit
};

/// Adds columns [first, first + N), which come after those seen before.
template <class T, int N>
__device__ inline void see(SoftmaxRow& row, const Floats<N>& values, int first) {
  float top = values.at[0];
#pragma unroll
  for (int i = 1; i < N; ++i) top = fmaxf(top, values.at[i]);
  if (top > row.top) {
    row.sum *= exponential<T>(row.top - top);
    row.top = top;
#pragma unroll
    for (int i = N - 1; i >= 0; --i) {
      if (values.at[i] == top) row.column = first + i;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) row.sum += exponential<T>(values.at[i] - row.top);
}

/// The warp's lanes together, on every lane.
template <class T>
__device__ inline SoftmaxRow warp_merged(const SoftmaxRow& row) {
  SoftmaxRow all;
  all.top = warp_max(row.top);
  all.sum = warp_sum(row.sum * exponential<T>(row.top - all.top));
  all.column = __reduce_min_sync(0xffffffffu, row.top == all.top ? row.column : INT_MAX);
  return all;
}

/// The block's threads together, the same on every thread. Has barriers; may be called several times in a row.
template <class T, int Threads>
__device__ inline SoftmaxRow block_merged(const SoftmaxRow& row) {
  static_assert(Threads % kWarp == 0 && Threads / kWarp <= kWarp);
  __shared__ SoftmaxRow warps[Threads / kWarp];
  const SoftmaxRow warp = warp_merged<T>(row);
  __syncthreads();  // an earlier call's warps have been read
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane == 0) warps[threadIdx.x / kWarp] = warp;
  __syncthreads();
  return warp_merged<T>(lane < Threads / kWarp ? warps[lane] : SoftmaxRow{});
}

/// Adds this thread's part of columns [begin, columns) as they lie in memory, pieces of N first; `begin` is a multiple of N. With
/// kept > 0 (then begin is 0), the first pieces are also put into `keep`.
template <class T, int N, int Threads>
__device__ inline void see_columns(SoftmaxRow& row, const T* logits, int begin, int columns, Pack<T, N>* keep, int kept) {
  const int pieces = columns / N;
#pragma unroll 4
  for (int p = begin / N + static_cast<int>(threadIdx.x); p < pieces; p += Threads) {
    const Pack<T, N> pack = load_pack<N>(logits + static_cast<std::int64_t>(p) * N);
    if (p < kept) keep[p] = pack;
    see<T>(row, floats_of(pack), p * N);
  }
  for (int column = pieces * N + static_cast<int>(threadIdx.x); column < columns; column += Threads) {
    see<T>(row, Floats<1>{to_float(logits[column])}, column);
  }
}

/// Writes value_of(Floats, first column) over this thread's part of columns [begin, columns); pieces below `kept` are read from
/// `keep`.
template <class T, int N, int Threads, class ValueOf>
__device__ inline void overwrite_columns(T* logits, int begin, int columns, const Pack<T, N>* keep, int kept, ValueOf value_of) {
  const int pieces = columns / N;
#pragma unroll 4
  for (int p = begin / N + static_cast<int>(threadIdx.x); p < pieces; p += Threads) {
    T* const at = logits + static_cast<std::int64_t>(p) * N;
    store_floats(at, value_of(floats_of(p < kept ? keep[p] : load_pack<N>(at)), p * N));
  }
  for (int column = pieces * N + static_cast<int>(threadIdx.x); column < columns; column += Threads) {
    store_floats(logits + column, value_of(Floats<1>{to_float(logits[column])}, column));
  }
}

}  // namespace hadal::kernels::cuda
