// Small passes around the attention kernels: per-row statistics before the backward, the sum of the shared key's gradient after it.
#pragma once

#include <cuda_runtime.h>

#include "core/tensor.h"
#include "kernels/cuda/attention_params.h"

namespace hadal::kernels::cuda {

/// Rows of statistics are padded to a multiple of this; the padding reads as "sees nothing".
inline constexpr int kStatisticsPad = 128;
__host__ __device__ inline int padded_tokens(int tokens) { return (tokens + kStatisticsPad - 1) / kStatisticsPad * kStatisticsPad; }

/// f32 [2, B, H, padded S]: first lse in base 2 (+inf where no key is visible, so that every probability is 0), then
/// delta = <o, d_o>.
Tensor row_statistics(cudaStream_t stream, Device device, const FlashAttentionBackward& args);

/// to[row, :] (+)= sum over chunks of partial f32 [chunks, rows, width], in their order; rows = B * Sk.
void sum_shared_key(cudaStream_t stream, const float* partial, int chunks, const Heads& to, bool add);

}  // namespace hadal::kernels::cuda
