// The gate that mixes the three branches of sparse attention: one linear layer with bias, then a sigmoid per branch and head.
// Rows of weight and bias are branch-major: compressed, selected, window, heads inside (spec/interop.md 7.3).
// H counts the heads of this rank.
#pragma once

#include <array>
#include <string>

#include "nn/attention/attention_options.h"
#include "nn/linear.h"

namespace hadal::nn {

/// One value per branch, in the order of the gate's rows.
enum Branch : std::size_t { kCompressed = 0, kSelected = 1, kWindow = 2 };
inline constexpr std::array<const char*, 3> kBranchNames{"cmp", "slc", "win"};
template <class T>
using PerBranch = std::array<T, 3>;

class BranchGate {
 public:
  /// Of one micro-batch.
  struct State {
    Tensor g;         ///< [T, 3H]
    Tensor d_logits;  ///< [T, 3H]
  };

  BranchGate(const AttentionOptions& options, const std::string& prefix);

  /// sum_b g_b o_b. x [T, d], o [T, H dv] each -> [T, H dv].
  Tensor forward(Stream& stream, ConstView x, const PerBranch<Tensor>& o, State& state) const;
  /// d_o_b for each branch; d_x (through the gate's logits) overwritten. Finishes the bias's gradient.
  PerBranch<Tensor> backward_input(Stream& stream, ConstView d_y, const PerBranch<Tensor>& o, View d_x, State& state);
  void backward_weight(Stream& stream, ConstView x, State& state) { weight_.accumulate(stream, state.d_logits, x); }
  void collect(ParameterList& parameters);

 private:
  std::int64_t heads_;
  Linear weight_;  ///< [3H, d]
  Parameter bias_;
};

}  // namespace hadal::nn
