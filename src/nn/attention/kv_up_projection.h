// W_UKV of MLA, the up-projection of the latent: per head dn rows of keys, then dv rows of values, [H (dn + dv), R];
// H counts the heads of this rank.
// Used whole it gives keys and values of every head (MHA form); split per head it moves queries into the latent space and
// values out of it (absorbed, MQA form; spec/model.md 3.2):
//   q_latent[t,h] = W_UK,h^T q[t,h];   o[t,h] = W_UV,h z[t,h]
#pragma once

#include <string>

#include "kernels/heads.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/attention_spans.h"
#include "nn/linear.h"

namespace hadal::nn {

class KvUpProjection {
 public:
  KvUpProjection(const AttentionOptions& options, const std::string& name);

  Linear& linear() { return linear_; }
  const Linear& linear() const { return linear_; }

  /// kv [plan.rows, H (dn + dv)] of the latents c [N, R] in the plan's ranges.
  Tensor project(Stream& stream, const KeyPlan& plan, ConstView c) const;
  /// d_c = d_kv W + beta d_c in the plan's ranges, which do not overlap when beta = 0.
  void project_backward(Stream& stream, const KeyPlan& plan, ConstView d_kv, View d_c, double beta) const;
  void project_weight(Stream& stream, const KeyPlan& plan, ConstView d_kv, ConstView c);

  /// Keys [T, H, dn] and values [T, H, dv] inside the packed product [T, H (dn + dv)].
  template <class AnyView>
  auto keys(AnyView kv) const {
    return kernels::heads_of(kv, heads_, nope_ + value_, 0, nope_);
  }
  template <class AnyView>
  auto values(AnyView kv) const {
    return kernels::heads_of(kv, heads_, nope_ + value_, nope_, value_);
  }

  /// q [T, H, dn] -> q_latent [T, H, R], overwritten.
  void absorb(Stream& stream, kernels::ConstHeads q, kernels::Heads q_latent) const;
  /// z [T, H, R] -> o [T, H, dv], overwritten.
  void expand(Stream& stream, kernels::ConstHeads z, kernels::Heads o) const;
  /// d_q += W_UK,h d_q_latent.
  void absorb_backward(Stream& stream, kernels::ConstHeads d_q_latent, kernels::Heads d_q) const;
  /// d_z = W_UV,h^T d_o.
  void expand_backward(Stream& stream, kernels::ConstHeads d_o, kernels::Heads d_z) const;
  /// Weight gradients of both.
  void absorb_weight(Stream& stream, kernels::ConstHeads q, kernels::ConstHeads d_q_latent);
  void expand_weight(Stream& stream, kernels::ConstHeads z, kernels::ConstHeads d_o);

  /// Whether the absorbed form takes fewer multiply-adds: `queries` rows that see `pairs` (query, key) pairs in all, against
  /// `keys` latents that the other form has to project up.
  bool absorbing_pays(LatentMode mode, std::int64_t queries, std::int64_t pairs, std::int64_t keys) const;

 private:
  ConstView key_rows(std::int64_t head) const;
  ConstView value_rows(std::int64_t head) const;

  std::int64_t heads_, nope_, rope_, value_, rank_;
  Linear linear_;
};

}  // namespace hadal::nn
