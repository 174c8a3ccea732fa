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

/// 16 rows as B of a product over channels (scores): rows quad and quad + 8, channels 8 pair .. 8 pair + 7 of each 32; as B of a product over
/// rows by add_rows.
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

/// out += a * rows, a [16, 16]. The rows' 8 x 8 matrices are turned around in registers, as reading columns from memory would touch four lines
/// with every eight lanes. Of each 32 channels a thread gets 8 consecutive ones from 8 pair on: columns 2 p + {0, 1} of tile 4 c + w are
/// channels 32 c + 8 p + 2 w + {0, 1}.
template <int kWidth>
__device__ void add_rows(float (&out)[kWidth / 8][4], const RowBuffer<kWidth>& rows, const std::uint32_t (&a)[4]) {
#pragma unroll
  for (int c = 0; c < kWidth / 32; ++c) {
    const uint4 &low = rows.at[c][0], &high = rows.at[c][1];
    mma(out[4 * c], a[0], a[1], a[2], a[3], transposed(low.x), transposed(high.x));
    mma(out[4 * c + 1], a[0], a[1], a[2], a[3], transposed(low.y), transposed(high.y));
    mma(out[4 * c + 2], a[0], a[1], a[2], a[3], transposed(low.z), transposed(high.z));
    mma(out[4 * c + 3], a[0], a[1], a[2], a[3], transposed(low.w), transposed(high.w));
  }
}

/// Row quad + 8 half of what add_rows made, times `factor`, to the row at `to`.
template <int kWidth>
__device__ void store_row(const float (&out)[kWidth / 8][4], int half, float factor, bf16* to, int pair) {
#pragma unroll
  for (int c = 0; c < kWidth / 32; ++c) {
    std::uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) words[w] = pack(out[4 * c + w][2 * half] * factor, out[4 * c + w][2 * half + 1] * factor);
    *reinterpret_cast<uint4*>(to + c * 32 + pair * 8) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

}  // namespace hadal::kernels::cuda
