#include "nn/attention/nsa_mla_attention.h"

#include <array>
#include <utility>

#include "kernels/rms_norm.h"
#include "nn/attention/gather_tokens.h"
#include "nn/attention/head_linear.h"
#include "nn/attention/nsa_mla_saved.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {
namespace {

using kernels::heads_of;

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
                   o.kv_lora_rank, o.storage()),
      pool_rope_(nsa_, prefix + ".nsa.compress.rope_weight", prefix + ".nsa.compress.rope_position", o.qk_rope_head_dim,
                 o.kv_lora_rank, o.storage()),
      // Norm gains start at one and do not decay.
      pooled_norm_(prefix + ".nsa.compress.norm.weight", {o.kv_lora_rank}, o.storage().accumulation(), {.init = Init::ones(), .decays = false}),
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

void NsaMlaAttention::norm_pooled(Stream& stream, ConstView pooled, View y, View inverse_rms) const {
  run(stream, kernels::RmsNormForward{
                  .x = pooled, .gain = pooled_norm_.value(), .eps = options_.rms_norm_eps, .y = y, .inverse_rms = inverse_rms});
}

AttentionInput NsaMlaAttention::compressed_input(const NsaMlaSaved& s) const {
  const KvUpProjection& projection = up(kCompressed);
  return {.q = projections_.q_all(s.latent.q.view()),
          .k = projection.keys(s.kv[kCompressed].view()),
          .k_shared = split_heads(s.k_rope_pooled.view(), 1),
          .v = projection.values(s.kv[kCompressed].view())};
}

AttentionInput NsaMlaAttention::token_input(const NsaMlaSaved& s, Branch branch) const {
  const Tensor& kv = s.kv[window_shares_keys(s) ? kSelected : branch];
  return {.q = projections_.q_all(s.latent.q.view()),
          .k = kv_b_.keys(kv.view()),
          .k_shared = split_heads(s.k_rope.view(), 1),
          .v = kv_b_.values(kv.view())};
}

AttentionInput NsaMlaAttention::latent_input(const NsaMlaSaved& s) const {
  const kernels::ConstHeads c = split_heads(s.c(), 1);
  return {.q = split_heads(s.q_latent.view(), options_.num_heads), .k = c, .k_shared = split_heads(s.k_rope.view(), 1), .v = c};
}

bool NsaMlaAttention::window_shares_keys(const NsaMlaSaved& s) const { return nsa_.tie_up && !s.in_latent; }

KeyPlan NsaMlaAttention::key_plan(const Context& ctx, const NsaMlaSaved& s, Branch branch) const {
  if (branch == kCompressed) return causal_entry_keys(ctx, nsa_);
  if (branch == kSelected) return s.in_latent ? token_keys(ctx) : causal_keys(ctx);
  if (!window_shares_keys(s)) return window_keys(ctx, nsa_.window);
  KeyPlan plan = causal_keys(ctx);
  plan.spans = window_spans(ctx, nsa_.window, plan);
  return plan;
}

Tensor NsaMlaAttention::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  NsaMlaSaved scratch;
  NsaMlaSaved* kept = make_saved<NsaMlaSaved>(saved);
  NsaMlaSaved& s = kept != nullptr ? *kept : scratch;
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads, rows = x.shape[0];

  projections_.forward(stream, x, s.latent);
  const kernels::Heads q_rope = projections_.q_rope(s.latent.q.view());
  // With queries gathered by key blocks, keys and values per head win at every length (spec/model.md 9.3): fewer operations a pair.
  s.in_latent = options_.latent_mode == LatentMode::kMqa;
  if (ctx.sequence != nullptr) gather_latents(ctx, s);
  s.k_rope = Tensor::empty({s.c().shape[0], options_.qk_rope_head_dim}, x.dtype, x.device);
  rope_->apply(stream, ctx.batch, r_of(s), split_heads(s.k_rope.view(), 1));
  if (s.in_latent) {
    const std::int64_t rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
    s.q_latent = Tensor::empty({rows, heads * (rank + rope)}, x.dtype, x.device);
    rotate_tokens(*rope_, ctx, q_rope, heads_of(s.q_latent.view(), heads, rank + rope, rank, rope));
  }
  rotate_tokens(*rope_, ctx, q_rope, q_rope);
  compress(ctx, s);

  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    s.o[branch] = Tensor::empty({rows, o_proj_.in()}, x.dtype, x.device);
    s.lse[branch] = Tensor::empty({rows, heads}, accumulation_dtype(x.dtype), x.device);
  }
  const KeyPlan entries = key_plan(ctx, s, kCompressed), window = key_plan(ctx, s, kWindow);
  s.kv[kCompressed] = up(kCompressed).project(stream, entries, s.c_pooled);
  const AttentionInput compressed = compressed_input(s);
  branches_.compressed(stream, entries.spans, compressed, split_heads(s.o[kCompressed].view(), heads), s.lse[kCompressed]);
  s.blocks = held_.get([&] { return branches_.select(stream, entries.spans, compressed, s.lse[kCompressed]); });
  selected_forward(ctx, s);
  if (!window_shares_keys(s)) s.kv[kWindow] = up(kWindow).project(stream, window, s.c());
  branches_.window(stream, window.spans, token_input(s, kWindow), split_heads(s.o[kWindow].view(), heads), s.lse[kWindow]);
  if (ctx.sequence != nullptr) s.kv[kSelected].reset();
  s.mixed = gate_.forward(stream, x, s.o, s.gate);
  return o_proj_.apply(stream, s.mixed);
}

void NsaMlaAttention::gather_latents(Context& ctx, NsaMlaSaved& s) const {
  const std::int64_t rows = ctx.batch * ctx.whole_seq();
  s.c_all = Tensor::empty({rows, options_.kv_lora_rank}, s.latent.c.dtype, s.latent.c.device);
  s.r_all = Tensor::empty({rows, options_.qk_rope_head_dim}, s.latent.c.dtype, s.latent.c.device);
  ctx.sequence->gather(ctx.stream, ctx.batch, {1, ctx.whole_seq()},
                       std::array<kernels::ConstHeads, 2>{split_heads(s.latent.c, 1), projections_.r(s.latent.kv_a)},
                       std::array<kernels::Heads, 2>{split_heads(s.c_all.view(), 1), split_heads(s.r_all.view(), 1)});
}

kernels::ConstHeads NsaMlaAttention::r_of(const NsaMlaSaved& s) const {
  return s.r_all.defined() ? split_heads(s.r_all.view(), 1) : projections_.r(static_cast<ConstView>(s.latent.kv_a));
}

void NsaMlaAttention::compress(Context& ctx, NsaMlaSaved& s) const {
  Stream& stream = ctx.stream;
  const ConstView c = s.c();
  const PoolSpans spans = pool_spans(ctx, nsa_);
  const std::int64_t entries = entry_rows(spans);
  s.pooled = Tensor::empty({entries, options_.kv_lora_rank}, c.dtype, c.device);
  s.pooled_rms = Tensor::empty({entries}, accumulation_dtype(c.dtype), c.device);
  s.c_pooled = Tensor::empty({entries, options_.kv_lora_rank}, c.dtype, c.device);
  s.k_rope_pooled = Tensor::empty({entries, options_.qk_rope_head_dim}, c.dtype, c.device);
  pool_latent_.forward(stream, spans, c, split_heads(c, 1), split_heads(s.pooled.view(), 1), s.pool_latent);
  norm_pooled(stream, s.pooled, s.c_pooled, s.pooled_rms);
  pool_rope_.forward(stream, spans, c, r_of(s), split_heads(s.k_rope_pooled.view(), 1), s.pool_rope);
  rotate_entries(*rope_, stream, spans, split_heads(s.k_rope_pooled.view(), 1), nsa_.block_stride);
  gather_rows(ctx, entry_spacing(ctx, nsa_), {&s.c_pooled, &s.k_rope_pooled});
}

void NsaMlaAttention::selected_forward(Context& ctx, NsaMlaSaved& s) const {
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads, rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
  const KeyPlan keys = key_plan(ctx, s, kSelected);
  const kernels::Heads o = split_heads(s.o[kSelected].view(), heads);
  if (!s.in_latent) {
    s.kv[kSelected] = kv_b_.project(stream, keys, s.c());
    branches_.selected(stream, keys.spans, token_input(s, kSelected), s.blocks, o, s.lse[kSelected]);
    return;
  }
  const ConstView q = s.latent.q;
  s.z = Tensor::empty({q.shape[0], heads * rank}, q.dtype, q.device);
  kv_b_.absorb(stream, projections_.q_nope(q), heads_of(s.q_latent.view(), heads, rank + rope, 0, rank));
  branches_.selected(stream, keys.spans, latent_input(s), s.blocks, split_heads(s.z.view(), heads), s.lse[kSelected]);
  kv_b_.expand(stream, split_heads(static_cast<ConstView>(s.z), heads), o);
}

}  // namespace hadal::nn
