// The ways flash attention is computed on CUDA; flash_attention.cu picks one.
#pragma once

#include <cuda_runtime.h>

#include "kernels/flash_attention.h"

namespace hadal::kernels::cuda {

/// Any head dims up to 640 (q, k) and 512 (v), f32 and bf16, multiplied in f32 on the plain pipes.
void general_forward(Stream& stream, const FlashAttentionForward& args);
/// `statistics` of attention_statistics.h; `shared_sums` f32 [Hk, B * Sk, ws] gets each key head's share of d_k_shared.
void general_backward(cudaStream_t stream, const FlashAttentionBackward& args, const float* statistics, float* shared_sums);

/// Whether the Hopper kernels take it: bf16, w <= 128, ws <= 64, dv <= 128, all multiples of 8 and 16-byte aligned, scale > 0.
bool fits_hopper(const FlashAttentionForward& args);
void hopper_forward(Stream& stream, const FlashAttentionForward& args);
bool fits_hopper(const FlashAttentionBackward& args);
/// d_q, and the rest: each needs `statistics`; `shared_sums` as above.
void hopper_backward_queries(Stream& stream, const FlashAttentionBackward& args, const float* statistics);
void hopper_backward_keys(Stream& stream, const FlashAttentionBackward& args, const float* statistics, float* shared_sums);

/// Calls body.template operator()<NA, NB, NV>(): chunks of 64 columns of k, k_shared and v. Missing columns are zeros in shared memory.
template <class Args, class Body>
void visit_chunks(const Args& args, Body&& body) {
  const bool wide = args.k.width > 64 || args.v.width > 64, shared = args.k_shared.defined();
  if (wide && shared) {
    body.template operator()<2, 1, 2>();
  } else if (wide) {
    body.template operator()<2, 0, 2>();
  } else if (shared) {
    body.template operator()<1, 1, 1>();
  } else {
    body.template operator()<1, 0, 1>();
  }
}

/// Columns [offset, offset + width) of each head.
inline ConstHeads columns_of(ConstHeads x, std::int64_t offset, std::int64_t width) {
  x.data = static_cast<const char*>(x.data) + static_cast<std::size_t>(offset) * size_of(x.dtype);
  x.width = width;
  return x;
}

}  // namespace hadal::kernels::cuda
