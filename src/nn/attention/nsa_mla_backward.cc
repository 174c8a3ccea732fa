#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "nn/attention/nsa_mla_attention.h"
#include "nn/attention/nsa_mla_saved.h"
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
  const std::int64_t batch = ctx.batch;

  s.d_y = d_y;
  Tensor d_x = Tensor::empty(latent.x.shape, d_y.dtype);
  PerBranch<Tensor> d_o = gate_.backward_input(stream, o_proj_.apply_transposed(stream, d_y), s.o, d_x, s.gate);
  branches_backward(stream, batch, d_o, s);

  // What overwrites comes first: the pooled entries, then everything that adds to c and r.
  latent.d_c = Tensor::empty(latent.c.shape, d_y.dtype);
  latent.d_kv_a = Tensor::empty(latent.kv_a.shape, d_y.dtype);
  compress_backward(stream, batch, s);
  up(kWindow).linear().apply_transposed(stream, s.d_kv[kWindow], latent.d_c, 1);
  if (s.in_latent) {
    add_to(stream, s.d_c_key, latent.d_c);
    add_to(stream, s.d_c_value, latent.d_c);
  } else if (!nsa_.tie_up) {
    kv_b_.linear().apply_transposed(stream, s.d_kv[kSelected], latent.d_c, 1);
  }
  for (Tensor* d_k_rope : {&s.d_k_rope_selected, &s.d_k_rope_window}) {
    rope_->apply(stream, batch, split_heads(d_k_rope->view(), 1), projections_.r(latent.d_kv_a.view()), RopeMode::kAddTranspose);
    d_k_rope->reset();
  }
  projections_.backward_input(stream, latent, d_x, 1);
  for (Tensor* done : {&s.k_rope, &s.d_c_key, &s.d_c_value, &s.blocks}) done->reset();
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    for (Tensor* done : {&s.kv[branch], &s.o[branch], &s.lse[branch]}) done->reset();
  }
  if (!s.in_latent) latent.q.reset();  // else the weight gradients of W_UK read it
  return d_x;
}

void NsaMlaAttention::branches_backward(Stream& stream, std::int64_t batch, PerBranch<Tensor>& d_o, NsaMlaSaved& s) {
  MlaProjections::State& latent = s.latent;
  const std::int64_t heads = options_.num_heads;
  const DType dtype = s.mixed.dtype();
  const auto gradient = [&](Branch branch, Tensor& d_q, Tensor& d_k_rope, const Tensor& like) -> BranchGradient {
    d_q = Tensor::empty(latent.q.shape(), dtype);
    d_k_rope = Tensor::empty({like.shape()[0], options_.qk_rope_head_dim}, dtype);
    s.d_kv[branch] = Tensor::empty(like.shape(), dtype);
    return {.o = split_heads(static_cast<ConstView>(s.o[branch]), heads),
            .lse = s.lse[branch],
            .d_o = split_heads(static_cast<ConstView>(d_o[branch]), heads),
            .d_q = projections_.q_all(d_q.view()),
            .d_k = kv_b_.keys(s.d_kv[branch].view()),
            .d_k_shared = split_heads(d_k_rope.view(), 1),
            .d_v = kv_b_.values(s.d_kv[branch].view())};
  };
  branches_.compressed_backward(stream, batch, compressed_input(s),
                                gradient(kCompressed, latent.d_q, s.d_k_rope_pooled, s.kv[kCompressed]));
  Tensor d_q;
  branches_.window_backward(stream, batch, token_input(s, kWindow), gradient(kWindow, d_q, s.d_k_rope_window, s.kv[kWindow]));
  add_to(stream, d_q, latent.d_q);
  if (s.in_latent) {
    s.d_o_selected = std::move(d_o[kSelected]);
    selected_latent_backward(stream, batch, s);
  } else {
    branches_.selected_backward(stream, batch, token_input(s, kSelected), s.blocks,
                                gradient(kSelected, d_q, s.d_k_rope_selected, s.kv[kWindow]));
    add_to(stream, d_q, latent.d_q);
    if (nsa_.tie_up) {
      add_to(stream, s.d_kv[kSelected], s.d_kv[kWindow]);
      s.d_kv[kSelected].reset();
    }
  }
  rope_->apply(stream, batch, projections_.q_rope(latent.d_q.view()), projections_.q_rope(latent.d_q.view()),
               RopeMode::kTranspose);
  if (s.in_latent) {
    const std::int64_t rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
    kv_b_.absorb_backward(stream, heads_of(s.d_q_latent.view(), heads, rank + rope, 0, rank),
                          projections_.q_nope(latent.d_q.view()));
    rope_->apply(stream, batch, heads_of(s.d_q_latent.view(), heads, rank + rope, rank, rope),
                 projections_.q_rope(latent.d_q.view()), RopeMode::kAddTranspose);
  }
}

void NsaMlaAttention::selected_latent_backward(Stream& stream, std::int64_t batch, NsaMlaSaved& s) {
  const std::int64_t heads = options_.num_heads;
  const DType dtype = s.z.dtype();
  Tensor d_z = Tensor::empty(s.z.shape(), dtype);
  kv_b_.expand_backward(stream, split_heads(static_cast<ConstView>(s.d_o_selected), heads), split_heads(d_z.view(), heads));
  s.d_q_latent = Tensor::empty(s.q_latent.shape(), dtype);
  s.d_c_key = Tensor::empty(s.latent.c.shape, dtype);
  s.d_c_value = Tensor::empty(s.latent.c.shape, dtype);
  s.d_k_rope_selected = Tensor::empty(s.k_rope.shape(), dtype);
  branches_.selected_backward(stream, batch, latent_input(s), s.blocks,
                              {.o = split_heads(static_cast<ConstView>(s.z), heads),
                               .lse = s.lse[kSelected],
                               .d_o = split_heads(d_z.view(), heads),
                               .d_q = split_heads(s.d_q_latent.view(), heads),
                               .d_k = split_heads(s.d_c_key.view(), 1),
                               .d_k_shared = split_heads(s.d_k_rope_selected.view(), 1),
                               .d_v = split_heads(s.d_c_value.view(), 1)});
  s.q_latent.reset();
}

void NsaMlaAttention::compress_backward(Stream& stream, std::int64_t batch, NsaMlaSaved& s) {
  MlaProjections::State& latent = s.latent;
  const Tensor d_c_pooled = up(kCompressed).linear().apply_transposed(stream, s.d_kv[kCompressed]);
  Tensor d_pooled = Tensor::empty(s.pooled.shape(), s.pooled.dtype());
  run(stream, kernels::RmsNormBackward{.x = s.pooled,
                                       .gain = pooled_norm_.value(),
                                       .inverse_rms = s.pooled_rms,
                                       .d_y = d_c_pooled,
                                       .d_residual = {},
                                       .d_x = d_pooled,
                                       .d_gain = pooled_norm_.grad()});
  pool_latent_.backward_input(stream, batch, split_heads(latent.c, 1), split_heads(d_pooled.view(), 1),
                              split_heads(latent.d_c.view(), 1), latent.d_c, s.pool_latent);
  const kernels::Heads d_k_rope = split_heads(s.d_k_rope_pooled.view(), 1);
  rope_->apply(stream, batch, d_k_rope, d_k_rope, RopeMode::kTranspose, 0, nsa_.block_stride);
  pool_rope_.backward_input(stream, batch, projections_.r(latent.kv_a), d_k_rope, projections_.r(latent.d_kv_a.view()),
                            latent.d_c, s.pool_rope);
  for (Tensor* done : {&s.pooled, &s.pooled_rms, &s.k_rope_pooled, &s.d_k_rope_pooled}) done->reset();
}

void NsaMlaAttention::backward_weight(Context& ctx, Saved& saved) {
  auto& s = saved_as<NsaMlaSaved>(saved);
  Stream& stream = ctx.stream;
  const ConstView c = s.latent.c;
  o_proj_.accumulate(stream, s.d_y, s.mixed);
  up(kCompressed).linear().accumulate(stream, s.d_kv[kCompressed], s.c_pooled);
  up(kWindow).linear().accumulate(stream, s.d_kv[kWindow], c);
  if (s.in_latent) {
    const std::int64_t heads = options_.num_heads, rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
    kv_b_.absorb_weight(stream, projections_.q_nope(s.latent.q.view()),
                        heads_of(s.d_q_latent.view(), heads, rank + rope, 0, rank));
    kv_b_.expand_weight(stream, split_heads(s.z.view(), heads), split_heads(s.d_o_selected.view(), heads));
  } else if (!nsa_.tie_up) {
    kv_b_.linear().accumulate(stream, s.d_kv[kSelected], c);
  }
  pool_latent_.backward_weight(stream, c, s.pool_latent);
  pool_rope_.backward_weight(stream, c, s.pool_rope);
  gate_.backward_weight(stream, s.latent.x, s.gate);
  projections_.backward_weight(stream, s.latent);
}

}  // namespace hadal::nn
