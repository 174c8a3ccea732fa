// SwiGLU between the two products of a feed-forward layer (spec/model.md 2, appendix A), optionally scaled per row by the router's
// weight: scaling h before W_down equals scaling the expert's output, and needs no stored output for the weight's gradient.
//   h = w * silu(a) * b,  [a | b] = gate_up
//   d_a = w d_h b sigma(a) (1 + a (1 - sigma(a)));  d_b = w d_h a sigma(a);  d_w = sum_i d_h_i silu(a_i) b_i
// One dtype; row_weight and d_row_weight have its accumulation_dtype (f32 for bf16).
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct SwigluForward {
  static constexpr const char* kName = "swiglu_forward";
  ConstView gate_up;     ///< [R, 2I]: gate columns, then up columns
  ConstView row_weight;  ///< [R] or empty
  View h;                ///< [R, I]
};

struct SwigluBackward {
  static constexpr const char* kName = "swiglu_backward";
  ConstView gate_up;
  ConstView row_weight;
  ConstView d_h;         ///< [R, I]
  View d_gate_up;        ///< [R, 2I], overwritten; may be gate_up's own memory
  View d_row_weight;     ///< [R], overwritten; empty without row_weight
};

void run(Stream& stream, const SwigluForward& args);
void run(Stream& stream, const SwigluBackward& args);

}  // namespace hadal::kernels
