// SwiGLU's arithmetic on CUDA, which the op and the epilogues of grouped products share: the same bits from both.
#pragma once

#include "kernels/cuda/floats.cuh"

namespace hadal::kernels::cuda {

/// Correctly rounded in f32; where results are rounded to bf16, by the hardware's power of two and reciprocal alone, which take what is
/// below 2^-126 for 0.
template <class T>
__device__ inline float sigmoid(float x) {
  return 1.0f / (1.0f + exponential<T>(-x));
}
template <>
__device__ inline float sigmoid<__nv_bfloat16>(float x) {
  constexpr float kLog2E = 1.44269504f;
  float power, result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-kLog2E * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + power));
  return result;
}

/// weight silu(a) b.
template <class T>
__device__ inline float weighted_swiglu(float weight, float a, float b) {
  return weight * (a * sigmoid<T>(a) * b);
}

}  // namespace hadal::kernels::cuda
