// Native sparse attention on grouped-query attention (spec/model.md 8): one set of queries, keys and values of their own for each
// of the three branches, gated pooling as phi, one selection per key/value group. Shape legend: T = B*S rows, d hidden size, H
// query heads, G key/value groups (of this rank), dk and dv their widths, Nc compressed entries.
#pragma once

#include <memory>
#include <string>

#include "nn/attention/attention.h"
#include "nn/attention/branch_gate.h"
#include "nn/attention/gated_pooling.h"
#include "nn/attention/nsa_branches.h"
#include "nn/linear.h"
#include "nn/rope.h"

namespace hadal::nn {

struct NsaGqaSaved;

class NsaGqaAttention : public Attention {
 public:
  NsaGqaAttention(const AttentionOptions& options, const std::string& prefix, std::shared_ptr<const RopeTable> rope);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

  /// The cache goes back by at most CacheTail::kMaxRollback tokens, or to 0.
  std::unique_ptr<AttentionCache> make_cache(std::int64_t max_tokens) const override;
  Tensor decode(Context& ctx, ConstView x, AttentionCache& cache) override;
  void hold_selection(bool hold) override { held_.hold(hold); }

 private:
  void compress(Context& ctx, NsaGqaSaved& s) const;
  /// Through phi into the gradients of whole sequences of the compressed branch's keys and values.
  void compress_backward(Context& ctx, Tensor& d_k_pooled, Tensor& d_v_pooled, NsaGqaSaved& s);

  AttentionOptions options_;  ///< with the heads of this rank
  NsaOptions nsa_;
  std::shared_ptr<const RopeTable> rope_;
  NsaBranches branches_;
  HeldBlocks held_;
  Linear q_proj_;             ///< [H dk, d]
  PerBranch<Linear> k_proj_;  ///< [G dk, d]
  PerBranch<Linear> v_proj_;  ///< [G dv, d]
  GatedPooling phi_k_;        ///< at head width, shared by the groups
  GatedPooling phi_v_;
  BranchGate gate_;
  Linear o_proj_;  ///< [d, H dv]
};

}  // namespace hadal::nn
