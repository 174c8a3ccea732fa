// Small passes around the attention kernels: per-row statistics before the backward, the sum of the shared key's gradient after it.
#pragma once

#include <cuda_runtime.h>

#include "core/tensor.h"
#include "kernels/cuda/attention_params.h"

namespace hadal::kernels::cuda {

/// Statistics of a head's queries come in tiles of 16: 16 times lse in base 2 (+inf where no key is visible and behind the last query,
/// so that every probability is 0), then 16 times delta = <o, d_o>. f32 [B, H, tiles, 2, 16], padded so that tiles of 48, 64 and 128
/// queries end inside.
inline constexpr int kStatisticsTile = 16;
inline constexpr int kStatisticsPad = 384;
__host__ __device__ inline int padded_tokens(int tokens) { return (tokens + kStatisticsPad - 1) / kStatisticsPad * kStatisticsPad; }
/// Where lse of query `token` of a sequence lies; delta lies kStatisticsTile further.
__host__ __device__ inline std::int64_t statistics_at(const AttentionSizes& sizes, int sequence, int head, int token) {
  const std::int64_t tile = (std::int64_t{sequence} * sizes.heads + head) * padded_tokens(sizes.tokens) + token / kStatisticsTile * kStatisticsTile;
  return 2 * tile + token % kStatisticsTile;
}

Tensor row_statistics(cudaStream_t stream, Device device, const FlashAttentionBackward& args);

/// to[row, :] (+)= sum over chunks of partial f32 [chunks, rows, width], in their order; rows = B * Sk.
void sum_shared_key(cudaStream_t stream, const float* partial, int chunks, const Heads& to, bool add);

}  // namespace hadal::kernels::cuda
