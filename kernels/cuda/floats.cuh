// Loads and stores of several neighbouring elements at once, computed with in f32: kernels bound by memory are written once for a
// piece of N elements, N being 16 bytes' worth where rows are aligned and 1 where they are not.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace hadal::kernels::cuda {

/// Elements of 16 bytes.
template <class T>
inline constexpr int kPiece = 16 / static_cast<int>(sizeof(T));

/// N elements as they lie in memory; moved in accesses of at most 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T at[N];
};

template <int N>
struct Floats {
  float at[N];
};

template <int N, class T>
__device__ inline Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

/// By value: a pack in shared memory is then read at once, not element by element.
template <class T, int N>
__device__ inline Floats<N> floats_of(Pack<T, N> pack) {
  Floats<N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result.at[i] = to_float(pack.at[i]);
  return result;
}

/// Shared memory that the reductions of a block declare: it counts beside what a launch asks for.
inline constexpr std::size_t kDeclaredShared = 1024;

/// Rounded to nearest even.
template <class T, int N>
__device__ inline Pack<T, N> pack_of(const Floats<N>& floats) {
  Pack<T, N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result.at[i] = from_float<T>(floats.at[i]);
  return result;
}

template <int N, class T>
__device__ inline Floats<N> load_floats(const T* from) {
  return floats_of(load_pack<N>(from));
}

template <int N, class T>
__device__ inline void store_floats(T* to, const Floats<N>& floats) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack_of<T>(floats);
}

/// e^x: to the last bits in f32; where results are rounded to bf16, by the hardware's power of two (relative error 2^-21 near 0).
template <class T>
__device__ inline float exponential(float x);
template <>
__device__ inline float exponential<float>(float x) {
  return expf(x);
}
template <>
__device__ inline float exponential<__nv_bfloat16>(float x) {
  return __expf(x);
}

}  // namespace hadal::kernels::cuda
