// The ways flash attention is computed on CUDA; flash_attention.cu picks one.
#pragma once

#include <cuda_runtime.h>

#include "kernels/flash_attention.h"

namespace hadal::kernels::cuda {

/// Any head dims up to 640 (q, k) and 512 (v), f32 and bf16, multiplied in f32 on the plain pipes.
void general_forward(cudaStream_t stream, const FlashAttentionForward& args);
/// `statistics` of attention_statistics.h; `shared_sums` f32 [Hk, B * Sk, ws] gets each key head's share of d_k_shared.
void general_backward(cudaStream_t stream, const FlashAttentionBackward& args, const float* statistics, float* shared_sums);

}  // namespace hadal::kernels::cuda
