// The first half of a layer of experts: the grouped product with gate and up matrices, and SwiGLU of what comes out. The CPU, and CUDA
// in f32, run the two ops one after the other; CUDA in bf16 makes h of the product's rounded sums before they leave the multiprocessor,
// so that the bits are those of the two ops.
//
// Shape legend as in kernels/grouped_gemm.h; I is the width of an expert. Rows from offsets[E] on are not touched.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// gate_up_r = x_r w_e^T, h_r = row_weight_r silu(gate_r) up_r.
struct GroupedSwigluForward {
  static constexpr const char* kName = "grouped_swiglu_forward";
  ConstView x;           ///< [R, in]
  ConstView offsets;     ///< I64 [E + 1]
  ConstView w;           ///< [E, 2I, in]: of each expert gate rows first
  ConstView row_weight;  ///< [R] of the accumulation dtype, or empty
  View gate_up;          ///< [R, 2I]
  View h;                ///< [R, I]
};

void run(Stream& stream, const GroupedSwigluForward& args);

}  // namespace hadal::kernels
