// Powers of two of a vector: the exponential of softmax scores that were scaled by log2 e beforehand, about two thirds of the
// work of exp_approx.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd/larger.h"
#include "kernels/cpu/simd/vector.h"

#ifdef HADAL_SIMD
namespace hadal::kernels::simd::HADAL_SIMD {
#else
namespace hadal::kernels::simd::portable {
#endif

/// 2^x for x <= 127 (f32), 1023 (f64): relative error 2e-7 in f32, 4e-16 in f64; 0 below the normal range, 2^-inf = 0, NaN
/// stays.
inline Vector<float> exp2_of(Vector<float> x) {
  typedef std::int32_t Integers __attribute__((vector_size(HADAL_VECTOR_BYTES)));
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the sum holds the rounded integer in its low bits
  const Vector<float> inside = larger(broadcast(-127.0f), x);
  const Vector<float> shifted = inside + kMagic;
  const Vector<float> f = inside - (shifted - kMagic);
  // Minimax on [-1/2, 1/2] among those that are 1 at 0.
  Vector<float> p = 0.0013264727f * f + 0.0096715127f;
  p = p * f + 0.055507337f;
  p = p * f + 0.24022242f;
  p = p * f + 0.69314698f;
  p = p * f + 1.0f;
  const Integers power = (reinterpret_cast<Integers>(shifted) + 127) << 23;  // -127 gives zero
  return p * reinterpret_cast<Vector<float>>(power);
}

inline Vector<double> exp2_of(Vector<double> x) {
  typedef std::int64_t Integers __attribute__((vector_size(HADAL_VECTOR_BYTES)));
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  const Vector<double> inside = larger(broadcast(-1023.0), x);
  const Vector<double> shifted = inside + kMagic;
  const Vector<double> f = inside - (shifted - kMagic);
  Vector<double> p = 2.5733568308756891e-11 * f + 4.4566753410492059e-10;
  p = p * f + 7.0548943863483480e-9;
  p = p * f + 1.0178051192960649e-7;
  p = p * f + 1.3215486815999977e-6;
  p = p * f + 1.5252733856293466e-5;
  p = p * f + 1.5403530393362756e-4;
  p = p * f + 1.3333558146390353e-3;
  p = p * f + 9.6181291076284831e-3;
  p = p * f + 5.5504108664821699e-2;
  p = p * f + 2.4022650695910071e-1;
  p = p * f + 6.9314718055994531e-1;
  p = p * f + 1.0;
  const Integers power = (reinterpret_cast<Integers>(shifted) + 1023) << 52;
  return p * reinterpret_cast<Vector<double>>(power);
}

}  // namespace
