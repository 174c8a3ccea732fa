// The selected branch over MLA's latent entries (absorbed form) on tensor cores.
#pragma once

#include "core/stream.h"
#include "kernels/cuda/nsa_segments.cuh"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

inline constexpr int kLatent = 512, kRotated = 64, kLatentWidth = kLatent + kRotated;

/// bf16, one key head of 512 + 64 with values of 512, whose rows can be read in 16-byte pieces.
template <class Args>
bool is_latent(const Args& args) {
  return args.q.dtype == DType::kBf16 && args.k.tokens > 0 && args.k.heads == 1 && args.k.width == kLatent && args.k_shared.defined() &&
         args.k_shared.width == kRotated && args.v.width == kLatent && aligned16(args.q) && aligned16(args.k) && aligned16(args.k_shared) &&
         aligned16(args.v);
}

/// True if it did the work: bf16, one key head of 512 + 64 with values of 512.
bool latent_forward(Stream& stream, const NsaSelectedForward& args);
/// d_q alone; delta [B*S, H] = <d_o, o>.
bool latent_query_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta);
/// d_k, d_k_shared and d_v.
bool latent_key_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta);

}  // namespace hadal::kernels::cuda
