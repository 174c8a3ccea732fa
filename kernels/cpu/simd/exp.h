// Exponential for loops that the compiler vectorises: no branch, no call, no table.
//
// x = n ln 2 + r with |r| <= ln 2 / 2; exp(x) = 2^n p(r), p a polynomial: minimax of degree 6 in f32, Taylor of degree 13 in
// f64. Relative error: f32 <= 1.5e-7, f64 <= 1e-15. Results below the smallest normal number are 0 (so exp(-inf) = 0);
// overflow gives infinity; NaN stays NaN. Include it from kernels/cpu/simd/*.cc: each instruction set gets its own copy.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd/vector.h"

#ifdef HADAL_SIMD
namespace hadal::kernels::simd::HADAL_SIMD {
#else
namespace hadal::kernels::simd::portable {
#endif

inline float exp_approx(float x) {
  constexpr float kLow = -87.336540f, kHigh = 88.722835f;  // ln(2^-126), ln(2^128), rounded inward
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
  const float inside = x < kLow ? kLow : (x > kHigh ? kHigh : x);
  const float shifted = inside * kLog2E + kMagic;
  const float n = shifted - kMagic;
  const float r = (inside - n * kLn2High) - n * kLn2Low;
  float p = 0.00138145401f;
  p = p * r + 0.00836874514f;
  p = p * r + 0.0416683908f;
  p = p * r + 0.166665204f;
  p = p * r + 0.499999934f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n in two factors: 2^128 is no float.
  const std::int32_t integer = __builtin_bit_cast(std::int32_t, shifted) - __builtin_bit_cast(std::int32_t, kMagic);
  const std::int32_t half = integer >> 1;
  const float scale_a = __builtin_bit_cast(float, (half + 127) << 23);
  const float scale_b = __builtin_bit_cast(float, (integer - half + 127) << 23);
  const float result = p * scale_a * scale_b;
  return x < kLow ? 0.0f : (x > kHigh ? __builtin_inff() : result);
}

inline double exp_approx(double x) {
  constexpr double kLow = -708.39641853226408, kHigh = 709.78271289338397;
  constexpr double kLog2E = 1.4426950408889634, kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  const double inside = x < kLow ? kLow : (x > kHigh ? kHigh : x);
  const double shifted = inside * kLog2E + kMagic;
  const double n = shifted - kMagic;
  const double r = (inside - n * kLn2High) - n * kLn2Low;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // 64-bit arithmetic shifts do not exist before AVX-512, so n is halved in floating point: its rounding is its own magic sum.
  const double half_shifted = n * 0.5 + kMagic;
  const std::int64_t half = __builtin_bit_cast(std::int64_t, half_shifted) - __builtin_bit_cast(std::int64_t, kMagic);
  const std::int64_t rest = __builtin_bit_cast(std::int64_t, shifted) - __builtin_bit_cast(std::int64_t, kMagic) - half;
  const double scale_a = __builtin_bit_cast(double, (half + 1023) << 52);
  const double scale_b = __builtin_bit_cast(double, (rest + 1023) << 52);
  const double result = p * scale_a * scale_b;
  return x < kLow ? 0.0 : (x > kHigh ? __builtin_inf() : result);
}

/// Lane by lane the same as exp_approx, for loops whose registers are laid out by hand.
inline Vector<float> exp_of(Vector<float> x) {
  typedef std::int32_t Integers __attribute__((vector_size(HADAL_VECTOR_BYTES)));
  constexpr float kLow = -87.336540f, kHigh = 88.722835f, kMagic = 12582912.0f;
  const Vector<float> inside = x < kLow ? broadcast(kLow) : (x > kHigh ? broadcast(kHigh) : x);
  const Vector<float> shifted = inside * 1.44269504f + kMagic;
  const Vector<float> n = shifted - kMagic;
  const Vector<float> r = (inside - n * 0.693359375f) - n * -2.12194440e-4f;
  Vector<float> p = r * 0.00138145401f + 0.00836874514f;
  p = p * r + 0.0416683908f;
  p = p * r + 0.166665204f;
  p = p * r + 0.499999934f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Integers integer = reinterpret_cast<Integers>(shifted) - __builtin_bit_cast(std::int32_t, kMagic);
  const Integers half = integer >> 1;
  const Vector<float> result =
      p * reinterpret_cast<Vector<float>>((half + 127) << 23) * reinterpret_cast<Vector<float>>((integer - half + 127) << 23);
  return x < kLow ? Vector<float>{} : (x > kHigh ? broadcast(__builtin_inff()) : result);
}

inline Vector<double> exp_of(Vector<double> x) {
  typedef std::int64_t Integers __attribute__((vector_size(HADAL_VECTOR_BYTES)));
  constexpr double kLow = -708.39641853226408, kHigh = 709.78271289338397, kMagic = 6755399441055744.0;
  constexpr std::int64_t kMagicBits = __builtin_bit_cast(std::int64_t, kMagic);
  const Vector<double> inside = x < kLow ? broadcast(kLow) : (x > kHigh ? broadcast(kHigh) : x);
  const Vector<double> shifted = inside * 1.4426950408889634 + kMagic;
  const Vector<double> n = shifted - kMagic;
  const Vector<double> r = (inside - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  Vector<double> p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  constexpr double kFactors[] = {1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0,
                                 1.0 / 120.0,      1.0 / 24.0,      1.0 / 6.0,      0.5,           1.0,          1.0};
  HADAL_UNROLL
  for (int i = 0; i < 12; ++i) p = p * r + kFactors[i];
  const Integers half = reinterpret_cast<Integers>(n * 0.5 + kMagic) - kMagicBits;
  const Integers rest = reinterpret_cast<Integers>(shifted) - kMagicBits - half;
  const Vector<double> result =
      p * reinterpret_cast<Vector<double>>((half + 1023) << 52) * reinterpret_cast<Vector<double>>((rest + 1023) << 52);
  return x < kLow ? Vector<double>{} : (x > kHigh ? broadcast(__builtin_inf()) : result);
}

}  // namespace
