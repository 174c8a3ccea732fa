// Fixed-width vectors as the compilers' own vector types (GCC, Clang), one width per instruction set, and the pragma that
// unrolls a loop over an array of them completely, so that the array lives in registers.
#pragma once

#include <cstdint>

#if defined(__clang__)
#define HADAL_UNROLL _Pragma("clang loop unroll(full)")
#define HADAL_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define HADAL_UNROLL _Pragma("GCC unroll 64")
#define HADAL_NO_UNROLL _Pragma("GCC unroll 1")
#endif

#if defined(HADAL_SIMD_avx512)
#define HADAL_VECTOR_BYTES 64
#elif defined(HADAL_SIMD_avx2)
#define HADAL_VECTOR_BYTES 32
#else
#define HADAL_VECTOR_BYTES 16
#endif

#ifdef HADAL_SIMD
namespace hadal::kernels::simd::HADAL_SIMD {
#else
namespace hadal::kernels::simd::portable {
#endif

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(HADAL_VECTOR_BYTES)));
  /// Same, at any address of a T.
  typedef T Loose __attribute__((vector_size(HADAL_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
};

template <class T>
using Vector = typename VectorOf<T>::Type;

template <class T>
inline constexpr int kLanesOf = HADAL_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::Loose*>(from);
}

template <class T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::Loose*>(to) = value;
}

template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

}  // namespace
