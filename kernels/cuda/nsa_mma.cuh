// Tensor-core fragments of mma.sync m16n8k16 (bf16 in, f32 sums) as the NSA kernels load them.
//
// With quad = lane / 4 and pair = lane % 4, a thread holds of A [16, 16] rows quad and quad + 8, of B [16, 8] column quad, both at depths
// 2 pair + {0, 1} and 2 pair + {8, 9}; of C [16, 8] rows quad and quad + 8, columns 2 pair + {0, 1}. A product does not care how its
// depth is numbered as long as both sides agree, so where A and B both come from rows in memory a thread takes 8 consecutive elements at
// 8 pair of 32: one 16-byte load, the depths of two steps, and no shared memory.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace hadal::kernels::cuda {

using bf16 = __nv_bfloat16;

__device__ inline void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                           std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// 32 depths, in the numbering above, of A (rows quad and quad + 8) and of kTiles tiles of B: the tiles' products take turns, so that none
/// waits for the one before it.
template <int kTiles>
__device__ inline void mma32(float (*c)[4], const uint4& low, const uint4& high, const uint4 (&b)[kTiles]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) mma(c[n], low.x, high.x, low.y, high.y, b[n].x, b[n].y);
#pragma unroll
  for (int n = 0; n < kTiles; ++n) mma(c[n], low.z, high.z, low.w, high.w, b[n].z, b[n].w);
}

__device__ inline uint4 load_row16(const bf16* from) { return __ldg(reinterpret_cast<const uint4*>(from)); }

/// An 8 x 8 matrix over the lanes (row quad, columns 2 pair + {0, 1}) turned around.
__device__ inline std::uint32_t transposed(std::uint32_t matrix) {
  std::uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(matrix));
  return result;
}

/// a in the low half.
__device__ inline std::uint32_t pack(float a, float b) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

/// 2^x within 2 ulp; 0 for -inf.
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ inline std::uint32_t shared_address(const void* at) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(at)); }

__device__ inline void ldmatrix4(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void ldmatrix4_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// 16 bytes to shared memory, zeros where `valid` is false (`from` must be a good address even then).
__device__ inline void copy16_async(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// All but the last kPending groups of this thread have arrived.
template <int kPending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace hadal::kernels::cuda
