// Maximum of two vectors in one instruction: the compilers turn the comparison of floating vectors into two slower ones, since a
// conditional promises more about NaN and signed zeros than is needed here.
#pragma once

#include "kernels/cpu/simd/vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifdef HADAL_SIMD
namespace hadal::kernels::simd::HADAL_SIMD {
#else
namespace hadal::kernels::simd::portable {
#endif

/// The larger of each pair; y where either is NaN.
#if defined(HADAL_SIMD_avx512)
// The masked forms: the plain ones of GCC 12 read an undefined vector and are warned about.
inline Vector<float> larger(Vector<float> x, Vector<float> y) {
  return Vector<float>(_mm512_mask_max_ps(__m512(x), 0xffff, __m512(x), __m512(y)));
}
inline Vector<double> larger(Vector<double> x, Vector<double> y) {
  return Vector<double>(_mm512_mask_max_pd(__m512d(x), 0xff, __m512d(x), __m512d(y)));
}
#elif defined(HADAL_SIMD_avx2)
inline Vector<float> larger(Vector<float> x, Vector<float> y) { return Vector<float>(_mm256_max_ps(__m256(x), __m256(y))); }
inline Vector<double> larger(Vector<double> x, Vector<double> y) { return Vector<double>(_mm256_max_pd(__m256d(x), __m256d(y))); }
#elif defined(__SSE2__)
inline Vector<float> larger(Vector<float> x, Vector<float> y) { return Vector<float>(_mm_max_ps(__m128(x), __m128(y))); }
inline Vector<double> larger(Vector<double> x, Vector<double> y) { return Vector<double>(_mm_max_pd(__m128d(x), __m128d(y))); }
#else
inline Vector<float> larger(Vector<float> x, Vector<float> y) { return x > y ? x : y; }
inline Vector<double> larger(Vector<double> x, Vector<double> y) { return x > y ? x : y; }
#endif

}  // namespace
