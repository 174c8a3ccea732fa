#include <array>

#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "nn/attention/gather_tokens.h"
#include "nn/attention/nsa_mla_attention.h"
#include "nn/attention/nsa_mla_saved.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {
namespace {

using kernels::heads_of;

void add_to(Stream& stream, ConstView x, View y) { run(stream, kernels::Add{.a = y, .b = x, .y = y}); }

}  // namespace

Tensor NsaMlaAttention::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  auto& s = saved_as<NsaMlaSaved>(saved);
  Stream& stream = ctx.stream;
  MlaProjections::State& latent = s.latent;

  s.d_y = d_y;
  Tensor d_x = Tensor::empty(latent.x.shape, d_y.dtype, d_y.device);
  PerBranch<Tensor> d_o = gate_.backward_input(stream, o_proj_.apply_transposed(stream, d_y), s.o, d_x, s.gate);
  branches_backward(ctx, d_o, s);

  latent.d_c = Tensor::empty(latent.c.shape, d_y.dtype, d_y.device);
  latent.d_kv_a = Tensor::empty(latent.kv_a.shape, d_y.dtype, d_y.device);
  const kernels::Heads d_r = projections_.r(latent.d_kv_a.view());
  if (ctx.sequence == nullptr) {
    latents_backward(ctx, s, latent.d_c, d_r);
  } else {
    Tensor d_c_all = Tensor::zeros(s.c_all.shape(), d_y.dtype, d_y.device), d_r_all = Tensor::zeros(s.r_all.shape(), d_y.dtype, d_y.device);
    latents_backward(ctx, s, d_c_all, split_heads(d_r_all.view(), 1));
    ctx.sequence->reduce_scatter(
        stream, ctx.batch, {1, ctx.whole_seq()},
        std::array<kernels::ConstHeads, 2>{split_heads(d_c_all.view(), 1), split_heads(d_r_all.view(), 1)},
        std::array<kernels::Heads, 2>{split_heads(latent.d_c.view(), 1), d_r});
  }
  projections_.backward_input(stream, latent, d_x, 1);
  for (Tensor* done : {&s.k_rope, &s.r_all, &s.d_c_key, &s.d_c_value, &s.blocks}) done->reset();
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    for (Tensor* done : {&s.kv[branch], &s.o[branch], &s.lse[branch], &s.d_k_rope[branch]}) done->reset();
  }
  if (!s.in_latent) latent.q.reset();  // else the weight gradients of W_UK read it
  return d_x;
}

void NsaMlaAttention::branches_backward(Context& ctx, PerBranch<Tensor>& d_o, NsaMlaSaved& s) {
  Stream& stream = ctx.stream;
  MlaProjections::State& latent = s.latent;
  const std::int64_t heads = options_.num_heads;
  const Storage storage(s.mixed.dtype(), stream.device());
  if (!s.in_latent && ctx.sequence != nullptr) s.kv[kSelected] = kv_b_.project(stream, key_plan(ctx, s, kSelected), s.c());
  // A window on the selected branch's keys adds to their gradients; else each branch has its own.
  const auto gradient = [&](Branch branch, Tensor& d_q, const Tensor& k_rope) -> AttentionGradient {
    const bool shares = branch == kWindow && window_shares_keys(s), add = shares || ctx.sequence != nullptr;
    const Branch keys = shares ? kSelected : branch;
    d_q = Tensor::empty(latent.q.shape(), storage);
    s.d_k_rope[branch] = add ? Tensor::zeros(k_rope.shape(), storage) : Tensor::empty(k_rope.shape(), storage);
    if (!shares) s.d_kv[branch] = key_gradient(ctx, s.kv[branch]);
    return {.o = split_heads(static_cast<ConstView>(s.o[branch]), heads),
            .lse = s.lse[branch],
            .d_o = split_heads(static_cast<ConstView>(d_o[branch]), heads),
            .d_q = projections_.q_all(d_q.view()),
            .d_k = kv_b_.keys(s.d_kv[keys].view()),
            .d_k_shared = split_heads(s.d_k_rope[branch].view(), 1),
            .d_v = kv_b_.values(s.d_kv[keys].view()),
            .add_to_keys = add};
  };
  branches_.compressed_backward(stream, key_plan(ctx, s, kCompressed).spans, compressed_input(s),
                                gradient(kCompressed, latent.d_q, s.k_rope_pooled));
  Tensor d_q;
  if (s.in_latent) {
    s.d_o_selected = std::move(d_o[kSelected]);
    selected_latent_backward(ctx, s);
  } else {
    branches_.selected_backward(stream, key_plan(ctx, s, kSelected).spans, token_input(s, kSelected), s.blocks,
                                gradient(kSelected, d_q, s.k_rope));
    add_to(stream, d_q, latent.d_q);
  }
  branches_.window_backward(stream, key_plan(ctx, s, kWindow).spans, token_input(s, kWindow), gradient(kWindow, d_q, s.k_rope));
  add_to(stream, d_q, latent.d_q);
  const kernels::Heads d_q_rope = projections_.q_rope(latent.d_q.view());
  rotate_tokens(*rope_, ctx, d_q_rope, d_q_rope, RopeMode::kTranspose);
  if (s.in_latent) {
    const std::int64_t rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
    kv_b_.absorb_backward(stream, heads_of(s.d_q_latent.view(), heads, rank + rope, 0, rank),
                          projections_.q_nope(latent.d_q.view()));
    rotate_tokens(*rope_, ctx, heads_of(s.d_q_latent.view(), heads, rank + rope, rank, rope), d_q_rope, RopeMode::kAddTranspose);
  }
}

void NsaMlaAttention::selected_latent_backward(Context& ctx, NsaMlaSaved& s) {
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads;
  const bool add = ctx.sequence != nullptr;
  const auto room = [&](const Shape& shape) {
    return add ? Tensor::zeros(shape, s.z.dtype(), s.z.device()) : Tensor::empty(shape, s.z.dtype(), s.z.device());
  };
  Tensor d_z = Tensor::empty(s.z.shape(), s.z.dtype(), s.z.device());
  kv_b_.expand_backward(stream, split_heads(static_cast<ConstView>(s.d_o_selected), heads), split_heads(d_z.view(), heads));
  s.d_q_latent = Tensor::empty(s.q_latent.shape(), s.z.dtype(), s.z.device());
  s.d_c_key = room(s.c().shape);
  s.d_c_value = room(s.c().shape);
  s.d_k_rope[kSelected] = room(s.k_rope.shape());
  branches_.selected_backward(stream, key_plan(ctx, s, kSelected).spans, latent_input(s), s.blocks,
                              {.o = split_heads(static_cast<ConstView>(s.z), heads),
                               .lse = s.lse[kSelected],
                               .d_o = split_heads(d_z.view(), heads),
                               .d_q = split_heads(s.d_q_latent.view(), heads),
                               .d_k = split_heads(s.d_c_key.view(), 1),
                               .d_k_shared = split_heads(s.d_k_rope[kSelected].view(), 1),
                               .d_v = split_heads(s.d_c_value.view(), 1),
                               .add_to_keys = add});
  s.q_latent.reset();
}

void NsaMlaAttention::latents_backward(Context& ctx, NsaMlaSaved& s, View d_c, kernels::Heads d_r) {
  Stream& stream = ctx.stream;
  // What overwrites comes first: the pooled entries, then everything that adds to c and r.
  compress_backward(ctx, s, d_c, d_r);
  if (s.in_latent) {
    add_to(stream, s.d_c_key, d_c);
    add_to(stream, s.d_c_value, d_c);
  } else {
    kv_b_.project_backward(stream, key_plan(ctx, s, kSelected), s.d_kv[kSelected], d_c, 1);
  }
  if (!window_shares_keys(s)) up(kWindow).project_backward(stream, key_plan(ctx, s, kWindow), s.d_kv[kWindow], d_c, 1);
  for (const Branch branch : {kSelected, kWindow}) {
    rope_->apply(stream, ctx.batch, split_heads(s.d_k_rope[branch].view(), 1), d_r, RopeMode::kAddTranspose);
  }
}

void NsaMlaAttention::compress_backward(Context& ctx, NsaMlaSaved& s, View d_c, kernels::Heads d_r) {
  Stream& stream = ctx.stream;
  const PoolSpans spans = pool_spans(ctx, nsa_);
  const bool add = ctx.sequence != nullptr;
  Tensor d_c_pooled = key_gradient(ctx, s.c_pooled);
  up(kCompressed).project_backward(stream, key_plan(ctx, s, kCompressed), s.d_kv[kCompressed], d_c_pooled, 0);
  reduce_scatter_rows(ctx, entry_spacing(ctx, nsa_), entry_rows(spans), {&d_c_pooled, &s.d_k_rope[kCompressed]});
  Tensor d_pooled = Tensor::empty(s.pooled.shape(), s.pooled.dtype(), s.pooled.device());
  run(stream, kernels::RmsNormBackward{.x = s.pooled,
                                       .gain = pooled_norm_.value(),
                                       .inverse_rms = s.pooled_rms,
                                       .d_y = d_c_pooled,
                                       .d_residual = {},
                                       .d_x = d_pooled,
                                       .d_gain = pooled_norm_.grad()});
  pool_latent_.backward_input(stream, spans, split_heads(s.c(), 1), split_heads(d_pooled.view(), 1), split_heads(d_c, 1), add,
                              d_c, s.pool_latent);
  const kernels::Heads d_k_rope = split_heads(s.d_k_rope[kCompressed].view(), 1);
  rotate_entries(*rope_, stream, spans, d_k_rope, nsa_.block_stride, RopeMode::kTranspose);
  pool_rope_.backward_input(stream, spans, r_of(s), d_k_rope, d_r, add, d_c, s.pool_rope);
  for (Tensor* done : {&s.pooled, &s.pooled_rms, &s.k_rope_pooled}) done->reset();
}

void NsaMlaAttention::backward_weight(Context& ctx, Saved& saved) {
  auto& s = saved_as<NsaMlaSaved>(saved);
  Stream& stream = ctx.stream;
  const ConstView c = s.c();
  const PoolSpans spans = pool_spans(ctx, nsa_);
  o_proj_.accumulate(stream, s.d_y, s.mixed);
  up(kCompressed).project_weight(stream, key_plan(ctx, s, kCompressed), s.d_kv[kCompressed], s.c_pooled);
  if (!window_shares_keys(s)) up(kWindow).project_weight(stream, key_plan(ctx, s, kWindow), s.d_kv[kWindow], c);
  if (s.in_latent) {
    const std::int64_t heads = options_.num_heads, rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
    kv_b_.absorb_weight(stream, projections_.q_nope(s.latent.q.view()),
                        heads_of(s.d_q_latent.view(), heads, rank + rope, 0, rank));
    kv_b_.expand_weight(stream, split_heads(s.z.view(), heads), split_heads(s.d_o_selected.view(), heads));
  } else {
    kv_b_.project_weight(stream, key_plan(ctx, s, kSelected), s.d_kv[kSelected], c);
  }
  pool_latent_.backward_weight(stream, spans, c, s.pool_latent);
  pool_rope_.backward_weight(stream, spans, c, s.pool_rope);
  gate_.backward_weight(stream, s.latent.x, s.gate);
  projections_.backward_weight(stream, s.latent);
}

}  // namespace hadal::nn
