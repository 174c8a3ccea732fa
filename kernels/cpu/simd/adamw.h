// Element loop of AdamW.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// Factors of one step, in the dtype of the state.
template <class T>
struct AdamWFactors {
  T grad_scale, beta1, beta2, step_size, inverse_sqrt_correction2, eps, keep, ema_decay;
};

template <class T>
struct AdamWLoop {
  /// ema may be null. keep = 1 - lr * weight_decay; step_size = lr / (1 - b1^t).
  void (*update)(std::int64_t n, const AdamWFactors<T>& f, const T* grad, T* value, T* m, T* v, T* ema);
  /// The same with moments stored as the bits of bfloat16, rounded to nearest even; the update itself sees them unrounded.
  void (*update_bf16)(std::int64_t n, const AdamWFactors<T>& f, const T* grad, T* value, std::uint16_t* m, std::uint16_t* v, T* ema);
};

template <class T>
const AdamWLoop<T>& adamw_loop();

}  // namespace hadal::kernels::simd
