// Which tile a block of the Hopper attention kernels works on, and its shared memory.
#pragma once

#include "kernels/cuda/attention_params.h"
#include "kernels/cuda/attention_products.cuh"

namespace hadal::kernels::cuda::hopper {

inline constexpr int kGroupThreads = 128;                    ///< threads of a warpgroup
inline constexpr int kThreads = 3 * kGroupThreads;           ///< one loads, two multiply
inline constexpr int kTileRows = 128;                        ///< rows that a block keeps: 64 of each multiplying warpgroup
inline constexpr int kConsumerWarps = 2 * kGroupThreads / 32;
inline constexpr int kLoaderRegisters = 24, kMultiplierRegisters = 240;

/// Blocks are numbered so that those with most work start first within a section of heads, and the heads of a section, which run at the
/// same time, fit into the L2 cache together as far as they move in step.
struct BlockTile {
  int tile, head, sequence;

  /// `index` of `tiles` of each of `heads` x `batch`; tile 0 has most work. A section is of `section` heads.
  __device__ BlockTile(int index, int tiles, int heads, int batch, int section = 16) {
    const int all = heads * batch, per_section = section * tiles;
    const int number = index / per_section, inside = index % per_section;
    const int width = min(section, all - number * section);
    tile = inside / width;
    const int pair = number * section + inside % width;
    head = pair % heads;
    sequence = pair / heads;
  }
};

/// 0 or 1, the same in all lanes for the compiler too.
__device__ __forceinline__ int multiplying_group() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kGroupThreads, 0) - 1;
}

/// The block's dynamic shared memory from its first 1024-byte boundary on.
__device__ __forceinline__ unsigned char* aligned_memory(unsigned char* memory) { return memory + (1024 - shared_address(memory) % 1024) % 1024; }

/// Two bf16 of one row, columns `column` and `column` + 1 of `width` (even).
__device__ __forceinline__ void store_pair(__nv_bfloat16* row, int column, int width, float x, float y) {
  if (column < width) *reinterpret_cast<__nv_bfloat162*>(row + column) = __floats2bfloat162_rn(x, y);
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Sum and maximum over the four threads that hold a row.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

}  // namespace hadal::kernels::cuda::hopper
