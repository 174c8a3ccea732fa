// Tensor maps (what the bulk tensor copy reads) of strided bf16 heads.
#pragma once

#include <cuda.h>

#include "kernels/heads.h"

namespace hadal::kernels::cuda::hopper {

/// Whether the copy engine can read `x`: bf16, width and strides multiples of 16 bytes, 16-byte aligned.
bool can_map(const ConstHeads& x);

/// Boxes of 64 columns x `rows` tokens of one head, 128-byte swizzle. Dims, innermost first: column, head, token of a sequence, sequence.
CUtensorMap heads_map(const ConstHeads& x, std::int64_t batch, int rows);

}  // namespace hadal::kernels::cuda::hopper
