// SwiGLU's arithmetic on CUDA, which the op and the epilogues of grouped products share: the same bits from both.
#pragma once

#include "kernels/cuda/floats.cuh"

namespace hadal::kernels::cuda {

/// Correctly rounded in f32; where results are rounded to bf16, two instructions.
template <class T>
__device__ inline float sigmoid(float x) {
  return 1.0f / (1.0f + exponential<T>(-x));
}
template <>
__device__ inline float sigmoid<__nv_bfloat16>(float x) {
  return __fdividef(1.0f, 1.0f + exponential<__nv_bfloat16>(-x));
}

/// weight silu(a) b.
template <class T>
__device__ inline float weighted_swiglu(float weight, float a, float b) {
  return weight * (a * sigmoid<T>(a) * b);
}

}  // namespace hadal::kernels::cuda
