// Element-wise loops over contiguous rows that several CPU ops share: add, scale, dot, axpy, sums in a fixed lane order.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// Sums run over 16 (f32) or 8 (f64) fixed lanes and then the lanes in order: the same result for any thread count.
template <class T>
struct VectorOps {
  void (*add)(std::int64_t n, const T* x, T* y);                   ///< y += x
  void (*axpy)(std::int64_t n, T a, const T* x, T* y);             ///< y += a x
  void (*scale)(std::int64_t n, T a, T* y);                        ///< y *= a
  T (*dot)(std::int64_t n, const T* x, const T* y);                ///< sum x y
  double (*sum_squares)(std::int64_t n, const T* x);               ///< in f64
};

/// Table for the active instruction set; T = float or double.
template <class T>
const VectorOps<T>& vector_ops();

}  // namespace hadal::kernels::simd
