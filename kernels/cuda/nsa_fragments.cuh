// Keys and values of 16 rows at a time, straight from memory in the layouts of nsa_mma.cuh.
#pragma once

#include "kernels/cuda/nsa_segments.cuh"

namespace hadal::kernels::cuda {

/// 16 rows as B of a product over channels (scores): rows quad and quad + 8.
template <int kWidth>
struct RowBuffer {
  uint4 at[kWidth / 32][2];

  __device__ void load(const HeadRows<const bf16>& x, std::int64_t first, int head, int row, int last, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bf16* const from = x.at(first + min(row + lane / 4 + 8 * half, last), head) + lane % 4 * 8;
#pragma unroll
      for (int c = 0; c < kWidth / 32; ++c) at[c][half] = load_row16(from + c * 32);
    }
  }
};

/// 16 rows as B of a product over rows: rows 2 pair + {0, 1, 8, 9}, channels 8 quad .. 8 quad + 7 of each 64.
template <int kWidth>
struct ColumnBuffer {
  uint4 at[kWidth / 64][4];

  __device__ void load(const HeadRows<const bf16>& x, std::int64_t first, int head, int row, int last, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bf16* const from = x.at(first + min(row + lane % 4 * 2 + i % 2 + i / 2 * 8, last), head) + lane / 4 * 8;
#pragma unroll
      for (int g = 0; g < kWidth / 64; ++g) at[g][i] = load_row16(from + g * 64);
    }
  }
};

/// out += a * rows, a [16, 16]. Of each 64 channels a thread gets 16 consecutive ones from 16 pair on: the even columns of the eight
/// tiles are the first 8, the odd ones the others.
template <int kWidth>
__device__ void add_rows(float (&out)[kWidth / 8][4], const ColumnBuffer<kWidth>& rows, const std::uint32_t (&a)[4]) {
#pragma unroll
  for (int g = 0; g < kWidth / 64; ++g) {
    const uint4* const r = rows.at[g];
    const std::uint32_t words[4][4] = {{r[0].x, r[0].y, r[0].z, r[0].w}, {r[1].x, r[1].y, r[1].z, r[1].w},
                                       {r[2].x, r[2].y, r[2].z, r[2].w}, {r[3].x, r[3].y, r[3].z, r[3].w}};
#pragma unroll
    for (int e = 0; e < 8; e += 2) {
      mma(out[g * 8 + e], a[0], a[1], a[2], a[3], low_halves(words[0][e / 2], words[1][e / 2]), low_halves(words[2][e / 2], words[3][e / 2]));
      mma(out[g * 8 + e + 1], a[0], a[1], a[2], a[3], high_halves(words[0][e / 2], words[1][e / 2]), high_halves(words[2][e / 2], words[3][e / 2]));
    }
  }
}

/// Row quad + 8 half of what add_rows made, times `factor`, to the row at `to`.
template <int kWidth>
__device__ void store_row(const float (&out)[kWidth / 8][4], int half, float factor, bf16* to, int pair) {
#pragma unroll
  for (int g = 0; g < kWidth / 64; ++g) {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      std::uint32_t words[4];
#pragma unroll
      for (int e = 0; e < 8; e += 2) words[e / 2] = pack(out[g * 8 + e][2 * half + odd] * factor, out[g * 8 + e + 1][2 * half + odd] * factor);
      *reinterpret_cast<uint4*>(to + g * 64 + pair * 16 + odd * 8) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

}  // namespace hadal::kernels::cuda
