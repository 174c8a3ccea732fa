// The selected branch over MLA's latent entries (absorbed form) on tensor cores.
#pragma once

#include "core/stream.h"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

inline constexpr int kLatent = 512, kRotated = 64, kLatentWidth = kLatent + kRotated;

/// True if it did the work: bf16, one key head of 512 + 64 with values of 512.
bool latent_forward(Stream& stream, const NsaSelectedForward& args);
/// d_q alone; delta [B*S, H] = <d_o, o>.
bool latent_query_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta);

}  // namespace hadal::kernels::cuda
