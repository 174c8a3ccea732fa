// Gated pooling of one block of rows, channel by channel (NsaCompress): softmax over the rows, weighted sum, and its gradient.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// Rows of x and logits are `x_stride` and `logits_stride` elements apart, rows of position and d_position `position_stride`.
template <class T>
struct GatedPooling {
  /// y[c] = sum_j alpha[j, c] x[j, c], alpha = softmax_j(logits[j, c] + position[j, c]); j < length, c < width <= 64.
  void (*forward)(std::int64_t length, std::int64_t width, const T* x, std::int64_t x_stride, const T* logits,
                  std::int64_t logits_stride, const T* position, std::int64_t position_stride, T* y);
  /// Adds to d_x, d_logits and d_position.
  void (*backward)(std::int64_t length, std::int64_t width, const T* x, std::int64_t x_stride, const T* logits,
                   std::int64_t logits_stride, const T* position, std::int64_t position_stride, const T* d_y, T* d_x,
                   std::int64_t d_x_stride, T* d_logits, std::int64_t d_logits_stride, T* d_position);
};

template <class T>
const GatedPooling<T>& gated_pooling();

}  // namespace hadal::kernels::simd
