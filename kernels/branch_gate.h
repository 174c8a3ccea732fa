// The gate of native sparse attention: sigmoid weights that mix three attention branches per row and head (spec/model.md 8, 9.2).
//   g[t,b,h] = sigmoid(logits[t, b H + h] + bias[b H + h]);   y[t,h] = sum_b g[t,b,h] o_b[t,h]
//   d_o_b[t,h] = g[t,b,h] d_y[t,h];   d_logits[t,b,h] = <d_y[t,h], o_b[t,h]> g (1 - g);   d_bias = sum_t d_logits
// T rows, H heads of width w, branches in the order compressed, selected, window; everything contiguous. One dtype, but with bf16
// branches g, bias and d_bias are f32, and logits and d_logits either (what the products before and after this op write and read).
// Sums over rows run over chunks fixed by T alone.
#pragma once

#include <array>

#include "core/tensor.h"
#include "kernels/op.h"

namespace hadal::kernels {

struct BranchGateForward {
  static constexpr const char* kName = "branch_gate_forward";
  std::int64_t heads = 0;      ///< H
  ConstView logits;            ///< [T, 3H], without bias
  ConstView bias;              ///< [3H]
  std::array<ConstView, 3> o;  ///< [T, H w] each
  View g;                      ///< [T, 3H]
  View y;                      ///< [T, H w]
};

struct BranchGateBackward {
  static constexpr const char* kName = "branch_gate_backward";
  std::int64_t heads = 0;
  ConstView g;                 ///< [T, 3H]
  std::array<ConstView, 3> o;  ///< [T, H w]
  ConstView d_y;               ///< [T, H w]
  std::array<View, 3> d_o;     ///< [T, H w], overwritten
  View d_logits;               ///< [T, 3H], overwritten
  View d_bias;                 ///< [3H], accumulated
};

void run(Stream& stream, const BranchGateForward& args);
void run(Stream& stream, const BranchGateBackward& args);

}  // namespace hadal::kernels
