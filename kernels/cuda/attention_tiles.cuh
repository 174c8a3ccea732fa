// Tiles of the general attention kernels: 16 rows that stay in shared memory against 64 columns that stream by, any width, in f32.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace hadal::kernels::cuda::general {

inline constexpr int kThreads = 128;
inline constexpr int kRows = 16;
inline constexpr int kColumns = 64;
inline constexpr int kHalf = kRows / 2;           ///< rows of one thread in a product
inline constexpr int kChunk = 32;                 ///< elements of a column held at a time
inline constexpr int kChunkStride = kChunk + 1;   ///< no bank conflicts between columns
inline constexpr int kWeightStride = kRows + 4;   ///< weights lie column by column, 16-byte aligned
inline constexpr int kChunkFloats = kColumns * kChunkStride;
inline constexpr int kWeightFloats = kColumns * kWeightStride;

__host__ __device__ inline int padded_width(int width) { return (width + kChunk - 1) / kChunk * kChunk; }

/// rows[r][i] = factor * element(r, i), zero from `width` up to the padded width and where element's row is past `count`.
template <class Element>
__device__ inline void load_rows(float* rows, int width, int count, float factor, Element element) {
  const int padded = padded_width(width);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * padded; i += kThreads) {
    const int row = i / padded, at = i % padded;
    rows[i] = row < count && at < width ? factor * element(row, at) : 0.0f;
  }
}

/// Dot products of the thread's column (threadIdx.x % 64) with its half of the rows. Starts and may end with other threads reading
/// `chunk`; synchronises before it writes.
template <class Element>
__device__ inline void dot_tile(const float* rows, int width, int count, float* chunk, float (&sums)[kHalf], Element element) {
  const int padded = padded_width(width), column = static_cast<int>(threadIdx.x) % kColumns, half = static_cast<int>(threadIdx.x) / kColumns;
#pragma unroll
  for (float& sum : sums) sum = 0;
  for (int start = 0; start < padded; start += kChunk) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kColumns * kChunk; i += kThreads) {
      const int c = i / kChunk, at = start + i % kChunk;
      chunk[c * kChunkStride + i % kChunk] = c < count && at < width ? element(c, at) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kChunk; i += 4) {
      float x[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) x[n] = chunk[column * kChunkStride + i + n];
#pragma unroll
      for (int r = 0; r < kHalf; ++r) {
        const float4 row = *reinterpret_cast<const float4*>(rows + (half * kHalf + r) * padded + start + i);
        sums[r] += row.x * x[0] + row.y * x[1] + row.z * x[2] + row.w * x[3];
      }
    }
  }
}

/// sums[r][n] += sum over columns of weights[column][r] * element(column, n * 128 + threadIdx.x).
template <int N, class Element>
__device__ inline void accumulate(const float* weights, int width, int count, float (&sums)[kRows][N], Element element) {
  for (int column = 0; column < count; ++column) {
    const float4* const at = reinterpret_cast<const float4*>(weights + column * kWeightStride);
    float w[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r += 4) {
      const float4 four = at[r / 4];
      w[r] = four.x;
      w[r + 1] = four.y;
      w[r + 2] = four.z;
      w[r + 3] = four.w;
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int i = n * kThreads + static_cast<int>(threadIdx.x);
      if (i >= width) continue;
      const float x = element(column, i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r][n] += w[r] * x;
    }
  }
}

}  // namespace hadal::kernels::cuda::general
