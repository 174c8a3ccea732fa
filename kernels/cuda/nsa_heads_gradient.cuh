// What the gradient kernels of nsa_heads.h do with 64 queries of a block of keys.
#pragma once

#include "kernels/cuda/nsa_heads_combine.cuh"
#include "kernels/cuda/nsa_heads_tiles.cuh"

namespace hadal::kernels::cuda {

struct HeadStatistics {
  const float* lse;    ///< [B*S, H]
  const float* delta;  ///< [B*S, H], <d_o, o>
};

/// Of a thread's two rows; lse to the base 2.
struct OwnStatistics {
  float lse[2], delta[2];

  __device__ OwnStatistics(const SelectedSizes& sizes, const HeadStatistics& from, const HeadWork& work, const OwnRows& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t at = rows.token[half] * sizes.heads + work.head;
      lse[half] = from.lse[at] * kLog2E;
      delta[half] = from.delta[at];
    }
  }
};

/// s = q k^T and d_p = d_o v^T of a tile, finished.
template <int kWidth, int kValue>
__device__ __forceinline__ void multiply_queries(float (&s)[32], float (&d_p)[32], std::uint32_t queries, std::uint32_t d_outputs, std::uint32_t keys,
                                                 std::uint32_t values) {
  hopper::product_fence();
  multiply_tiles<kWidth>(s, hopper::fresh(queries), hopper::fresh(keys));
  multiply_tiles<kValue>(d_p, hopper::fresh(d_outputs), hopper::fresh(values));
  hopper::product_commit();
  hopper::product_wait<0>();
  hopper::hold(s);
  hopper::hold(d_p);
}

/// Packed probabilities and d_s.
__device__ __forceinline__ void differentiate(std::uint32_t (&p)[16], std::uint32_t (&d_s)[16], float (&s)[32], float (&d_p)[32], float scale,
                                              const OwnRows& rows, const OwnStatistics& own) {
  const int pair = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int half = i / 2 % 2;
    s[i] = i / 4 * 8 + pair * 2 + i % 2 <= rows.limit[half] ? fast_exp2(fmaf(s[i], scale, -own.lse[half])) : 0.0f;
    d_p[i] = s[i] * (d_p[i] - own.delta[half]);
  }
  hopper::pack(s, p);
  hopper::pack(d_p, d_s);
}

/// The tile's share of d_q to the partial results.
template <int kWidth>
__device__ __forceinline__ void store_query_gradient(const std::uint32_t (&d_s)[16], std::uint32_t keys, const HeadPartials& to, const OwnRows& rows,
                                                     float scale) {
  constexpr int kFirst = kWidth > 128 ? 128 : kWidth, kRest = kWidth - kFirst;  // columns of a product
  float d_q[kFirst / 2], d_q_rest[kRest > 0 ? kRest / 2 : 1];
  hopper::clear(d_q);
  hopper::clear(d_q_rest);
  hopper::hold(d_q);
  hopper::hold(d_q_rest);
  hopper::product_fence();
  add_tile(d_q, d_s, hopper::fresh(keys));
  if constexpr (kRest > 0) add_tile(d_q_rest, d_s, hopper::fresh(keys + tile_bytes(kFirst)));
  hopper::product_commit();
  hopper::product_wait<0>();
  hopper::hold(d_q);
  hopper::hold(d_q_rest);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (rows.limit[half] < 0) continue;
    bf16* const row = to.rows + rows.to[half] * kWidth;
    store_partial(row, d_q, half, scale);
    if constexpr (kRest > 0) store_partial(row + kFirst, d_q_rest, half, scale);
  }
}

/// All gradients where every query head has its own key head; delta [B*S, H].
template <int kWidth, int kShared, int kValue>
void own_keys_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta);

}  // namespace hadal::kernels::cuda
