// What device code shares: conversion, 16-byte vectors, reductions in a fixed order (same bits in each run).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace hadal::kernels::cuda {

inline constexpr int kWarp = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// 16 bytes of T, as one load or store moves them.
template <class T>
struct alignas(16) Vec16 {
  static constexpr int kCount = 16 / static_cast<int>(sizeof(T));
  T at[kCount];
};

template <class T>
__device__ inline Vec16<T> load16(const T* from) {
  return *reinterpret_cast<const Vec16<T>*>(from);
}
template <class T>
__device__ inline void store16(T* to, const Vec16<T>& vec) {
  *reinterpret_cast<Vec16<T>*>(to) = vec;
}

/// Whether rows of `width` elements from `pointer` on can be moved in 16-byte vectors. Host or device.
template <class T>
__host__ __device__ inline bool aligned16(const T* pointer, std::int64_t width) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0 && width % (16 / static_cast<std::int64_t>(sizeof(T))) == 0;
}

/// Sum over the warp, on every lane; a butterfly, so each lane has the same bits.
template <class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}

template <class T>
__device__ inline T warp_max(T x) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) {
    const T other = __shfl_xor_sync(0xffffffffu, x, lane);
    x = other > x ? other : x;
  }
  return x;
}

/// Sum over a block of Threads threads (a multiple of 32), on every thread. May be called several times in a row.
template <int Threads, class T>
__device__ inline T block_sum(T x) {
  static_assert(Threads % kWarp == 0 && Threads <= 1024);
  constexpr int kWarps = Threads / kWarp;
  __shared__ T parts[kWarps];
  x = warp_sum(x);
  if constexpr (kWarps == 1) return x;
  __syncthreads();  // an earlier call's parts have been read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = parts[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) sum += parts[warp];
  return sum;
}

}  // namespace hadal::kernels::cuda
