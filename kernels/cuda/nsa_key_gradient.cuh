// Gradients of keys and values over selected blocks on tensor cores.
#pragma once

#include "core/stream.h"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

/// d_k and d_v of bf16 heads of a size that visit_widths knows; delta [B*S, H] = <d_o, o>.
void mma_key_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta);

}  // namespace hadal::kernels::cuda
