// Keys and values of 16 rows at a time, straight from memory in the layouts of nsa_mma.cuh.
#pragma once

#include "kernels/cuda/nsa_segments.cuh"

namespace hadal::kernels::cuda {

/// Parts of 16 keys that a warp has in hand at a time: what registers allow.
template <int kWidth>
inline constexpr int kKeyParts = kWidth > 128 ? 1 : 2;

/// Keys (or values) of one head of one sequence; their last kShared channels come from rows that all heads share.
template <int kShared>
struct KeySource {
  HeadRows<const bf16> k, k_shared;
  std::int64_t first;  ///< row of the sequence's first key
  int head, last;      ///< last: key behind which there is none; it stands in for those that are asked for
  int key_width;

  /// Channel `channel` of a key, where the next 32 or 64 lie.
  __device__ const bf16* at(int key, int channel) const {
    const std::int64_t row = first + min(key, last);
    if constexpr (kShared > 0) {
      if (channel >= key_width) return k_shared.at(row, 0) + channel - key_width;
    }
    return k.at(row, head) + channel;
  }
};

/// 16 rows as B of a product over channels (scores): rows quad and quad + 8.
template <int kWidth>
struct RowBuffer {
  uint4 at[kWidth / 32][2];

  template <int kShared>
  __device__ void load(const KeySource<kShared>& from, int key, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = key + lane / 4 + 8 * half;
      const bf16* const own = from.at(row, 0) + lane % 4 * 8;
#pragma unroll
      for (int c = 0; c < (kWidth - kShared) / 32; ++c) at[c][half] = load_row16(own + c * 32);
      if constexpr (kShared > 0) {
        const bf16* const shared = from.at(row, kWidth - kShared) + lane % 4 * 8;
#pragma unroll
        for (int c = 0; c < kShared / 32; ++c) at[(kWidth - kShared) / 32 + c][half] = load_row16(shared + c * 32);
      }
    }
  }
};

/// 16 rows as B of a product over rows: rows 2 pair + {0, 1, 8, 9}, channels 8 quad .. 8 quad + 7 of each 64.
template <int kWidth>
struct ColumnBuffer {
  uint4 at[kWidth / 64][4];

  template <int kShared>
  __device__ void load(const KeySource<kShared>& from, int key, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = key + lane % 4 * 2 + i % 2 + i / 2 * 8;
      const bf16* const own = from.at(row, 0) + lane / 4 * 8;
#pragma unroll
      for (int g = 0; g < (kWidth - kShared) / 64; ++g) at[g][i] = load_row16(own + g * 64);
      if constexpr (kShared > 0) {
        const bf16* const shared = from.at(row, kWidth - kShared) + lane / 4 * 8;
#pragma unroll
        for (int g = 0; g < kShared / 64; ++g) at[(kWidth - kShared) / 64 + g][i] = load_row16(shared + g * 64);
      }
    }
  }
};

/// Rows quad and quad + 8 as A over channels, in shared memory in the order of the lanes: step c of the depth is to[2 c * 32 + lane] and
/// to[(2 c + 1) * 32 + lane].
template <int kWidth>
__device__ void keep_rows(uint4* to, const HeadRows<const bf16>& x, const TileRows& rows, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const bf16* const from = x.at(rows.token(row), rows.head(row)) + lane % 4 * 8;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) to[(c * 2 + half) * kWarp + lane] = load_row16(from + c * 32);
  }
}

/// out += a * rows, a [16, 16]. Of each 64 channels a thread gets 16 consecutive ones from 16 pair on: the even columns of the eight
/// tiles are the first 8, the odd ones the others.
template <int kWidth>
__device__ void add_rows(float (&out)[kWidth / 8][4], const ColumnBuffer<kWidth>& rows, const std::uint32_t (&a)[4]) {
#pragma unroll
  for (int g = 0; g < kWidth / 64; ++g) {
    const uint4* const r = rows.at[g];
    const std::uint32_t words[4][4] = {
        {r[0].x, r[0].y, r[0].z, r[0].w}, {r[1].x, r[1].y, r[1].z, r[1].w}, {r[2].x, r[2].y, r[2].z, r[2].w}, {r[3].x, r[3].y, r[3].z, r[3].w}};
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
