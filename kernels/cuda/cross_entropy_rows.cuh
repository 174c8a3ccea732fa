// Rows of logits to losses and, in place, to their gradients, for linear_cross_entropy.cu.
//
// Bound by memory once it keeps reading and writing: a block goes over rows one after another, and while it writes a row's
// gradient piece by piece, the next row's logits come into the pieces of shared memory that become free, where they are looked at
// a few pieces later. So neither the exponentials nor the row's one reduction leaves the memory idle for long. Columns that do
// not fit into shared memory are read from the cache a second time.
#pragma once

#include <cuda_pipeline.h>

#include "kernels/cuda/softmax_row.cuh"

namespace hadal::kernels::cuda {

/// All pointers at the chunk's first row.
template <class T>
struct CrossEntropyRows {
  std::int64_t rows;
  int columns;
  int kept;             ///< pieces of a row in shared memory
  std::int64_t stride;  ///< elements from row to row, a multiple of a piece
  float scale;
  bool gradient;
  T* logits;
  const std::int32_t* targets;
  const float* loss_weight;  ///< or null
  float* token_loss;
  std::int32_t* prediction;  ///< or null
};

/// Kept pieces: value_of(Floats, first column) is written over those of `current` (null: nothing is), while those of `next`
/// (null: there is none) take their place and are added to `row`.
template <class T, int Threads, class ValueOf>
__device__ inline void pass_kept(int kept, Pack<T, kPiece<T>>* keep, T* current, const T* next, SoftmaxRow& row,
                                 ValueOf value_of) {
  constexpr int N = kPiece<T>, kAhead = 4;  ///< pieces of a thread on their way
  for (int p = static_cast<int>(threadIdx.x); p < kept + kAhead * Threads; p += Threads) {
    if (p < kept) {
      if (current != nullptr) store_floats(current + static_cast<std::int64_t>(p) * N, value_of(floats_of(keep[p]), p * N));
      if (next != nullptr) __pipeline_memcpy_async(&keep[p], next + static_cast<std::int64_t>(p) * N, 16);
    }
    __pipeline_commit();
    const int arrived = p - kAhead * Threads;
    if (next == nullptr || arrived < 0) continue;
    __pipeline_wait_prior(kAhead);
    see<T>(row, floats_of(keep[arrived]), arrived * N);
  }
}

template <class T, int Threads>
__global__ __launch_bounds__(Threads) void cross_entropy_rows(CrossEntropyRows<T> c) {
  constexpr int N = kPiece<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const keep = reinterpret_cast<Pack<T, N>*>(shared);
  SoftmaxRow seen;
  const auto nothing = []<int Count>(const Floats<Count>& values, int) { return values; };
  pass_kept<T, Threads>(c.kept, keep, nullptr, c.logits + blockIdx.x * c.stride, seen, nothing);
  for (std::int64_t row = blockIdx.x; row < c.rows; row += gridDim.x) {
    T* const at = c.logits + row * c.stride;
    const std::int64_t following = row + gridDim.x;
    const T* const next = following < c.rows ? c.logits + following * c.stride : nullptr;
    see_columns<T, N, Threads>(seen, at, c.kept * N, c.columns, keep, 0);
    const int target = c.targets[row];
    if (target >= c.columns) __trap();  // no host waits here that could be told
    const float weight = target < 0 ? 0.0f : (c.loss_weight == nullptr ? 1.0f : c.loss_weight[row]);
    const float target_logit = target < 0 ? 0.0f : to_float(at[target]);  // before the barriers after which it is written over
    const SoftmaxRow found = block_merged<T, Threads>(seen);
    if (threadIdx.x == 0) {
      c.token_loss[row] = weight == 0.0f ? 0.0f : logf(found.sum) + (found.top - target_logit);
      if (c.prediction != nullptr) c.prediction[row] = min(found.column, c.columns - 1);  // of a row of NaN too
    }
    seen = SoftmaxRow{};
    const float scaled = c.scale * weight, factor = scaled / found.sum;
    const auto gradient_of = [=]<int Count>(Floats<Count> values, int first) {
#pragma unroll
      for (int i = 0; i < Count; ++i) values.at[i] = factor * exponential<T>(values.at[i] - found.top);
      if (target >= first && target < first + Count) {
#pragma unroll
        for (int i = 0; i < Count; ++i) values.at[i] -= first + i == target ? scaled : 0.0f;
      }
      return values;
    };
    pass_kept<T, Threads>(c.kept, keep, c.gradient ? at : nullptr, next, seen, gradient_of);
    if (c.gradient) overwrite_columns<T, N, Threads>(at, c.kept * N, c.columns, keep, 0, gradient_of);
  }
}

}  // namespace hadal::kernels::cuda
