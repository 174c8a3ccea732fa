// d_q = scale * d_s k over selected blocks, from the d_s that the keys' gradient has kept.
#pragma once

#include <cstdint>

#include "core/stream.h"
#include "kernels/cuda/nsa_key_rows.cuh"

namespace hadal::kernels::cuda {

/// d_q of the heads whose d_s are in `scores`; kWidth, kShared as visit_widths names them.
template <int kWidth, int kShared>
void query_sum(Stream& stream, const SelectedInputs<bf16>& in, const ScoreGradients& scores, HeadRows<bf16> d_q);

}  // namespace hadal::kernels::cuda
