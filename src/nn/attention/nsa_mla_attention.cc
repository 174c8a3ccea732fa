#include "nn/attention/nsa_mla_attention.h"

#include <utility>

#include "kernels/rms_norm.h"
#include "nn/attention/head_linear.h"
#include "nn/attention/nsa_mla_saved.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {
namespace {

using kernels::heads_of;

/// Longest sequence whose selected branch runs with keys and values per head: about where the absorbed form, with its one entry
/// for all heads, starts to win (spec/model.md 9.3).
constexpr std::int64_t kLongestMhaSequence = 8192;

}  // namespace

NsaMlaAttention::NsaMlaAttention(const AttentionOptions& o, const std::string& prefix, std::shared_ptr<const RopeTable> rope,
                                 std::shared_ptr<const SelectionSum> selection_sum)
    : options_(o.own_heads()),
      nsa_(options_.nsa.value()),
      rope_(std::move(rope)),
      branches_(nsa_, softmax_scale(o.qk_width(), o.rope), nsa_.num_select_groups, std::move(selection_sum)),
      projections_(o, prefix),
      kv_b_(o, prefix + ".kv_b_proj.weight"),
      pool_latent_(nsa_, prefix + ".nsa.compress.latent_weight", prefix + ".nsa.compress.latent_position", o.kv_lora_rank,
                   o.kv_lora_rank, o.dtype),
      pool_rope_(nsa_, prefix + ".nsa.compress.rope_weight", prefix + ".nsa.compress.rope_position", o.qk_rope_head_dim,
                 o.kv_lora_rank, o.dtype),
      // Norm gains start at one and do not decay.
      pooled_norm_(prefix + ".nsa.compress.norm.weight", {o.kv_lora_rank}, o.dtype, {.init = Init::ones(), .decays = false}),
      gate_(o, prefix),
      o_proj_(from_heads(prefix + ".o_proj.weight", o)) {
  if (!nsa_.tie_up) {
    kv_compressed_.emplace(o, prefix + ".nsa.cmp.kv_b_proj.weight");
    kv_window_.emplace(o, prefix + ".nsa.win.kv_b_proj.weight");
  }
}

void NsaMlaAttention::collect(ParameterList& parameters) {
  projections_.collect(parameters);
  kv_b_.linear().collect(parameters);
  if (!nsa_.tie_up) {
    kv_compressed_->linear().collect(parameters);
    kv_window_->linear().collect(parameters);
  }
  pool_latent_.collect(parameters);
  pool_rope_.collect(parameters);
  parameters.push_back(&pooled_norm_);
  gate_.collect(parameters);
  o_proj_.collect(parameters);
}

KvUpProjection& NsaMlaAttention::up(Branch branch) {
  if (nsa_.tie_up || branch == kSelected) return kv_b_;
  return branch == kCompressed ? *kv_compressed_ : *kv_window_;
}

bool NsaMlaAttention::selects_in_latent(std::int64_t seq) const {
  if (options_.latent_mode != LatentMode::kAuto) return options_.latent_mode == LatentMode::kMqa;
  return seq > kLongestMhaSequence;
}

void NsaMlaAttention::norm_pooled(Stream& stream, ConstView pooled, View y, View inverse_rms) const {
  run(stream, kernels::RmsNormForward{
                  .x = pooled, .gain = pooled_norm_.value(), .eps = options_.rms_norm_eps, .y = y, .inverse_rms = inverse_rms});
}

BranchInput NsaMlaAttention::compressed_input(const NsaMlaSaved& s) const {
  const KvUpProjection& projection = up(kCompressed);
  return {.q = projections_.q_all(s.latent.q.view()),
          .k = projection.keys(s.kv[kCompressed].view()),
          .k_shared = split_heads(s.k_rope_pooled.view(), 1),
          .v = projection.values(s.kv[kCompressed].view())};
}

BranchInput NsaMlaAttention::token_input(const NsaMlaSaved& s, Branch branch) const {
  const Tensor& kv = s.kv[nsa_.tie_up ? kWindow : branch];
  return {.q = projections_.q_all(s.latent.q.view()),
          .k = kv_b_.keys(kv.view()),
          .k_shared = split_heads(s.k_rope.view(), 1),
          .v = kv_b_.values(kv.view())};
}

BranchInput NsaMlaAttention::latent_input(const NsaMlaSaved& s) const {
  const kernels::ConstHeads c = split_heads(s.latent.c, 1);
  return {.q = split_heads(s.q_latent.view(), options_.num_heads), .k = c, .k_shared = split_heads(s.k_rope.view(), 1), .v = c};
}

Tensor NsaMlaAttention::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  NsaMlaSaved scratch;
  NsaMlaSaved* kept = make_saved<NsaMlaSaved>(saved);
  NsaMlaSaved& s = kept != nullptr ? *kept : scratch;
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads, rows = x.shape[0], batch = ctx.batch;

  projections_.forward(stream, x, s.latent);
  s.in_latent = selects_in_latent(rows / batch);
  s.k_rope = Tensor::empty({rows, options_.qk_rope_head_dim}, x.dtype);
  rope_->apply(stream, batch, projections_.r(s.latent.kv_a), split_heads(s.k_rope.view(), 1));
  if (s.in_latent) {
    const std::int64_t rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
    s.q_latent = Tensor::empty({rows, heads * (rank + rope)}, x.dtype);
    rope_->apply(stream, batch, projections_.q_rope(s.latent.q.view()),
                 heads_of(s.q_latent.view(), heads, rank + rope, rank, rope));
  }
  rope_->apply(stream, batch, projections_.q_rope(s.latent.q.view()), projections_.q_rope(s.latent.q.view()));
  compress(stream, batch, s);

  s.kv[kCompressed] = up(kCompressed).linear().apply(stream, s.c_pooled);
  s.kv[kWindow] = up(kWindow).linear().apply(stream, s.latent.c);
  if (!nsa_.tie_up && !s.in_latent) s.kv[kSelected] = kv_b_.linear().apply(stream, s.latent.c);
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    s.o[branch] = Tensor::empty({rows, o_proj_.in()}, x.dtype);
    s.lse[branch] = Tensor::empty({rows, heads}, x.dtype);
  }
  const BranchInput compressed = compressed_input(s);
  branches_.compressed(stream, batch, compressed, 0, split_heads(s.o[kCompressed].view(), heads), s.lse[kCompressed]);
  s.blocks = held_.get([&] { return branches_.select(stream, batch, compressed, s.lse[kCompressed], 0); });
  selected_forward(stream, batch, s);
  branches_.window(stream, batch, token_input(s, kWindow), 0, split_heads(s.o[kWindow].view(), heads), s.lse[kWindow]);
  s.mixed = gate_.forward(stream, x, s.o, s.gate);
  return o_proj_.apply(stream, s.mixed);
}

void NsaMlaAttention::compress(Stream& stream, std::int64_t batch, NsaMlaSaved& s) const {
  const View c = s.latent.c;
  const std::int64_t entries = batch * branches_.num_compressed(c.shape[0] / batch);
  s.pooled = Tensor::empty({entries, options_.kv_lora_rank}, c.dtype);
  s.pooled_rms = Tensor::empty({entries}, c.dtype);
  s.c_pooled = Tensor::empty({entries, options_.kv_lora_rank}, c.dtype);
  s.k_rope_pooled = Tensor::empty({entries, options_.qk_rope_head_dim}, c.dtype);
  const kernels::Heads k_rope = split_heads(s.k_rope_pooled.view(), 1);
  pool_latent_.forward(stream, batch, c, split_heads(c, 1), split_heads(s.pooled.view(), 1), s.pool_latent);
  norm_pooled(stream, s.pooled, s.c_pooled, s.pooled_rms);
  pool_rope_.forward(stream, batch, c, projections_.r(s.latent.kv_a), k_rope, s.pool_rope);
  rope_->apply(stream, batch, k_rope, k_rope, RopeMode::kForward, 0, nsa_.block_stride);
}

void NsaMlaAttention::selected_forward(Stream& stream, std::int64_t batch, NsaMlaSaved& s) const {
  const std::int64_t heads = options_.num_heads, rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
  const kernels::Heads o = split_heads(s.o[kSelected].view(), heads);
  if (!s.in_latent) {
    branches_.selected(stream, batch, token_input(s, kSelected), s.blocks, 0, o, s.lse[kSelected]);
    return;
  }
  const ConstView q = s.latent.q;
  s.z = Tensor::empty({q.shape[0], heads * rank}, q.dtype);
  kv_b_.absorb(stream, projections_.q_nope(q), heads_of(s.q_latent.view(), heads, rank + rope, 0, rank));
  branches_.selected(stream, batch, latent_input(s), s.blocks, 0, split_heads(s.z.view(), heads), s.lse[kSelected]);
  kv_b_.expand(stream, split_heads(static_cast<ConstView>(s.z), heads), o);
}

}  // namespace hadal::nn
