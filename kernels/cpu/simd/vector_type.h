// Fixed-width vectors of the instruction set being compiled, as the compiler's own vector types: arithmetic is element-wise and
// a scalar operand is broadcast. For kernels/cpu/simd/*.cc whose registers are laid out by hand.
#pragma once

#include <cstdint>

#ifdef HADAL_SIMD
namespace hadal::kernels::simd::HADAL_SIMD {
#else
namespace hadal::kernels::simd::portable {
#endif

#if defined(HADAL_SIMD_avx512)
inline constexpr int kVectorBytes = 64;
inline constexpr int kTileRows = 8;  // 8 x 3 accumulators of 32 registers
#elif defined(HADAL_SIMD_avx2)
inline constexpr int kVectorBytes = 32;
inline constexpr int kTileRows = 4;  // 4 x 3 accumulators of 16 registers
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kTileRows = 4;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(from);
}
template <class T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(to) = value;
}
template <class T>
inline Vector<T> broadcast(T value) {
  return Vector<T>{} + value;
}

/// Sum of the lanes, halves first: a fixed order.
template <class T>
inline T sum_of(Vector<T> x) {
  T lanes[kLanes<T>];
  store<T>(lanes, x);
  for (int width = kLanes<T> / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}
/// Largest lane; NaN when all are NaN.
template <class T>
inline T max_of(Vector<T> x) {
  T lanes[kLanes<T>];
  store<T>(lanes, x);
  for (int width = kLanes<T> / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] = lanes[lane + width] <= lanes[lane] ? lanes[lane] : lanes[lane + width];
  }
  return lanes[0];
}

/// 2^x for x <= 127 (f32), 1023 (f64): relative error 1.5e-7 in f32, 4e-16 in f64; 0 below the normal range, 2^-inf = 0, NaN stays.
inline Vector<float> exp2_of(Vector<float> x) {
  typedef std::int32_t Integers __attribute__((vector_size(kVectorBytes)));
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the sum holds the rounded integer in its low bits
  const Vector<float> inside = x < -126.0f ? broadcast(-126.0f) : x;
  const Vector<float> shifted = inside + kMagic;
  const Vector<float> f = inside - (shifted - kMagic);
  // Minimax on [-1/2, 1/2].
  Vector<float> p = 0.00015461444698569129f * f + 0.0013400428177615838f;
  p = p * f + 0.0096180566785246381f;
  p = p * f + 0.055503272266703021f;
  p = p * f + 0.24022650922288759f;
  p = p * f + 0.69314720670283260f;
  p = p * f + 1.0f;
  const Integers power = (reinterpret_cast<Integers>(shifted) + 127) << 23;
  return x < -126.0f ? Vector<float>{} : p * reinterpret_cast<Vector<float>>(power);
}

inline Vector<double> exp2_of(Vector<double> x) {
  typedef std::int64_t Integers __attribute__((vector_size(kVectorBytes)));
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  const Vector<double> inside = x < -1022.0 ? broadcast(-1022.0) : x;
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
  return x < -1022.0 ? Vector<double>{} : p * reinterpret_cast<Vector<double>>(power);
}

}  // namespace
