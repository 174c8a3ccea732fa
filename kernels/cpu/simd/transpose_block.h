// Transposition of square blocks in registers, for kernels/cpu/simd/*.cc that pack operands.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/simd/vector.h"

#ifdef HADAL_SIMD
namespace hadal::kernels::simd::HADAL_SIMD {
#else
namespace hadal::kernels::simd::portable {
#endif

// Lanes of two vectors taken in turn: the first halves, or the second halves.
template <class T, int... I>
inline Vector<T> interleave_low(Vector<T> x, Vector<T> y, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(x, y, (I / 2 + (I % 2) * static_cast<int>(sizeof...(I)))...);
}
template <class T, int... I>
inline Vector<T> interleave_high(Vector<T> x, Vector<T> y, std::integer_sequence<int, I...>) {
  constexpr int kCount = static_cast<int>(sizeof...(I));
  return __builtin_shufflevector(x, y, (I / 2 + kCount / 2 + (I % 2) * kCount)...);
}

/// Square block of lanes x lanes: rows of b (ldb apart) become columns of `packed` (rows `width` apart). log2(lanes) rounds of
/// interleaving transpose it in registers.
template <class T>
inline void transpose_block(const T* b, std::int64_t ldb, T* packed, std::int64_t width) {
  constexpr int kLanes = kLanesOf<T>;
  using Lanes = std::make_integer_sequence<int, kLanes>;
  Vector<T> x[kLanes], y[kLanes];
  HADAL_UNROLL
  for (int i = 0; i < kLanes; ++i) x[i] = load(b + i * ldb);
  HADAL_UNROLL
  for (int round = 1; round < kLanes; round *= 2) {
    HADAL_UNROLL
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = interleave_low<T>(x[i], x[i + kLanes / 2], Lanes{});
      y[2 * i + 1] = interleave_high<T>(x[i], x[i + kLanes / 2], Lanes{});
    }
    HADAL_UNROLL
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
  HADAL_UNROLL
  for (int i = 0; i < kLanes; ++i) store(packed + i * width, x[i]);
}

}  // namespace
