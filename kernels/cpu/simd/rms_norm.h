// Row loops of RMSNorm.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

template <class T>
struct RmsNormRows {
  /// Returns rho.
  T (*forward)(std::int64_t width, const T* x, const T* gain, double eps, T* y);
  /// d_x overwritten (residual may be null), d_gain accumulated.
  void (*backward)(std::int64_t width, const T* x, const T* gain, T rho, const T* d_y, const T* residual, T* d_x, T* d_gain);
};

template <class T>
const RmsNormRows<T>& rms_norm_rows();

}  // namespace hadal::kernels::simd
