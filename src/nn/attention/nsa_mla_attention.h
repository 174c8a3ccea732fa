// Native sparse attention on multi-head latent attention (spec/model.md 9.2, appendix B). Queries, the latent c and the shared
// rotated key are those of dense MLA; each branch has an up-projection of its own (or all share one, tie_up). Compressed entries
// are pooled latents, normed, with pooled un-rotated keys that rotate at their block's first position. Shape legend: T = B*S
// rows, d hidden size, H heads (of this rank), dn/dr/dv widths, R = kv_lora_rank, Nc compressed entries per sequence.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "nn/attention/attention.h"
#include "nn/attention/branch_gate.h"
#include "nn/attention/gated_pooling.h"
#include "nn/attention/kv_up_projection.h"
#include "nn/attention/mla_projections.h"
#include "nn/attention/nsa_branches.h"
#include "nn/rope.h"

namespace hadal::nn {

struct NsaMlaSaved;
class NsaMlaCache;

class NsaMlaAttention : public Attention {
 public:
  /// `selection_sum`: where the heads of a selection group lie on several ranks, else null.
  NsaMlaAttention(const AttentionOptions& options, const std::string& prefix, std::shared_ptr<const RopeTable> rope,
                  std::shared_ptr<const SelectionSum> selection_sum);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

  /// The cache goes back by at most CacheTail::kMaxRollback tokens, or to 0.
  std::unique_ptr<AttentionCache> make_cache(std::int64_t max_tokens) const override;
  Tensor decode(Context& ctx, ConstView x, AttentionCache& cache) override;
  void hold_selection(bool hold) override { held_.hold(hold); }

 private:
  /// Up-projection of a branch.
  KvUpProjection& up(Branch branch);
  const KvUpProjection& up(Branch branch) const { return const_cast<NsaMlaAttention*>(this)->up(branch); }
  /// Whether the window reads the selected branch's keys and values: one up-projection, used by both in MHA form.
  bool window_shares_keys(const NsaMlaSaved& s) const;
  /// Which keys the queries here meet in a branch.
  KeyPlan key_plan(const Context& ctx, const NsaMlaSaved& s, Branch branch) const;
  /// RMSNorm of the pooled latents [N, R] -> [N, R].
  void norm_pooled(Stream& stream, ConstView pooled, View y, View inverse_rms) const;
  void gather_latents(Context& ctx, NsaMlaSaved& s) const;
  kernels::ConstHeads r_of(const NsaMlaSaved& s) const;
  void compress(Context& ctx, NsaMlaSaved& s) const;
  /// Inputs of the branches in MHA form, and of the selected one in MQA form.
  AttentionInput compressed_input(const NsaMlaSaved& s) const;
  AttentionInput token_input(const NsaMlaSaved& s, Branch branch) const;
  AttentionInput latent_input(const NsaMlaSaved& s) const;
  void selected_forward(Context& ctx, NsaMlaSaved& s) const;
  /// d_q of the three branches summed and un-rotated, d_kv and the gradients of the shared keys; parts of backward_input.
  void branches_backward(Context& ctx, PerBranch<Tensor>& d_o, NsaMlaSaved& s);
  void selected_latent_backward(Context& ctx, NsaMlaSaved& s);
  /// d_c [B*S, R] and d_r [B*S, 1, dr] of whole sequences, overwritten, or added to under context parallelism.
  void compress_backward(Context& ctx, NsaMlaSaved& s, View d_c, kernels::Heads d_r);
  void latents_backward(Context& ctx, NsaMlaSaved& s, View d_c, kernels::Heads d_r);

  /// The three branches of one step of decoding; q [n, H (dn + dr)] is rotated here, keys and values come from the cache.
  void decode_branches(Stream& stream, View q, std::int64_t start, NsaMlaCache& cache, PerBranch<Tensor>& o) const;
  void append_compressed(Stream& stream, NsaMlaCache& cache) const;

  AttentionOptions options_;  ///< with the heads of this rank
  NsaOptions nsa_;            ///< and their selection groups
  std::shared_ptr<const RopeTable> rope_;
  NsaBranches branches_;
  HeldBlocks held_;
  MlaProjections projections_;
  KvUpProjection kv_b_;  ///< of the selected branch, or of all (tie_up)
  std::optional<KvUpProjection> kv_compressed_;
  std::optional<KvUpProjection> kv_window_;
  GatedPooling pool_latent_;  ///< A [R, R], P [l, R]
  GatedPooling pool_rope_;    ///< B [dr, R], Q [l, dr]
  Parameter pooled_norm_;
  BranchGate gate_;
  Linear o_proj_;
};

}  // namespace hadal::nn
