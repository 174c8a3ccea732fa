// Gated pooling of one block of rows, channel by channel (NsaCompress): softmax over the rows, weighted sum, and its gradient.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// `length` rows of `width` channels; rows of x, logits and position lie their strides apart.
template <class T>
struct PoolingBlock {
  std::int64_t length, width;
  const T* x;
  std::int64_t x_stride;
  const T* logits;
  std::int64_t logits_stride;
  const T* position;
  std::int64_t position_stride;
};

/// Rows that the gradient is added to; d_position has position's stride.
template <class T>
struct PoolingGradient {
  T* d_x;
  std::int64_t d_x_stride;
  T* d_logits;
  std::int64_t d_logits_stride;
  T* d_position;
};

template <class T>
struct GatedPooling {
  /// y[c] = sum_j alpha[j, c] x[j, c], alpha = softmax_j(logits[j, c] + position[j, c]).
  void (*forward)(const PoolingBlock<T>& block, T* y);
  void (*backward)(const PoolingBlock<T>& block, const T* d_y, const PoolingGradient<T>& to);
};

template <class T>
const GatedPooling<T>& gated_pooling();

}  // namespace hadal::kernels::simd
