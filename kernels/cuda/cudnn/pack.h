// Between our layouts of attention and cuDNN's: one key [k | k_shared] per head, statistics by head. bf16, widths and strides multiples
// of 8 elements, 16-byte aligned.
#pragma once

#include <cuda_runtime.h>

#include "kernels/heads.h"

namespace hadal::kernels::cuda::cudnn {

/// packed [tokens, heads, w + ws] = [k | k_shared, the same for every head].
void pack_keys(cudaStream_t stream, const ConstHeads& k, const ConstHeads& k_shared, void* packed);
/// d_k = the first columns of packed [tokens, heads, w + ws]; d_k_shared = the sum of the others over the heads, in order, in f32.
void unpack_key_gradients(cudaStream_t stream, const void* packed, const Heads& d_k, const Heads& d_k_shared);

/// to [batch, heads, rows] = from [batch, rows, heads], f32.
void statistics_by_head(cudaStream_t stream, const float* from, float* to, std::int64_t batch, std::int64_t rows, std::int64_t heads);
/// to [batch, rows, heads] = from [batch, heads, rows], f32.
void statistics_by_row(cudaStream_t stream, const float* from, float* to, std::int64_t batch, std::int64_t rows, std::int64_t heads);

}  // namespace hadal::kernels::cuda::cudnn
