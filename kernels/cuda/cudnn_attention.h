// cuDNN's fused attention behind flash attention's args, in builds that have cuDNN and its C++ frontend (kernels/cuda/cudnn, which
// registers itself here). Nothing depends on it: flash_attention.cu asks, and computes itself when there is none or it declines.
#pragma once

#include "kernels/flash_attention.h"

namespace hadal::kernels::cuda {

/// Takes bf16 with a causal mask without window, queries at the positions of the keys, dims that are multiples of 8 up to 256; false:
/// not these args, and nothing was done. The forward is deterministic. The backward is not (float atomics), so it declines unless
/// nondeterministic_allowed() (kernels/determinism.h).
struct CudnnAttention {
  bool (*forward)(Stream& stream, const FlashAttentionForward& args);
  bool (*backward)(Stream& stream, const FlashAttentionBackward& args);
};

/// nullptr in a build without cuDNN.
inline constinit const CudnnAttention* cudnn_attention = nullptr;

}  // namespace hadal::kernels::cuda
