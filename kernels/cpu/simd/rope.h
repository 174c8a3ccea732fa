// Rotation of all heads of one row.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// sine_sign is 1 or -1 (the other way round).
template <class T>
struct RopeRows {
  void (*in_place)(std::int64_t heads, std::int64_t pairs, T sine_sign, const T* cosines, const T* sines, T* y,
                   std::int64_t y_stride);
  /// y = rotated x; no overlap.
  void (*to)(std::int64_t heads, std::int64_t pairs, T sine_sign, const T* cosines, const T* sines, const T* x,
             std::int64_t x_stride, T* y, std::int64_t y_stride);
  /// y += rotated x; no overlap.
  void (*add_to)(std::int64_t heads, std::int64_t pairs, T sine_sign, const T* cosines, const T* sines, const T* x,
                 std::int64_t x_stride, T* y, std::int64_t y_stride);
};

template <class T>
const RopeRows<T>& rope_rows();

}  // namespace hadal::kernels::simd
