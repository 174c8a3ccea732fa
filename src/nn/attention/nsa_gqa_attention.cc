#include "nn/attention/nsa_gqa_attention.h"

#include <utility>

#include "kernels/rows.h"
#include "nn/attention/gather_tokens.h"
#include "nn/attention/head_linear.h"
#include "nn/attention/nsa_gqa_cache.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {

struct NsaGqaSaved : Saved {
  ConstView x, d_y;
  Tensor q;                   ///< [T, H dk], rotated
  PerBranch<Tensor> k, v;     ///< of whole sequences, [B*S, G dk], [B*S, G dv]; k rotated but for the compressed branch
  Tensor k_pooled, v_pooled;  ///< [B Nc, G dk] rotated, [B Nc, G dv]
  GatedPooling::State phi_k, phi_v;
  BranchGate::State gate;
  PerBranch<Tensor> o, lse;  ///< [T, H dv], [T, H]
  Tensor blocks;             ///< I32 [T, G, n]
  Tensor mixed;              ///< [T, H dv]
  Tensor d_q;
  PerBranch<Tensor> d_k, d_v;

  AttentionInput input(Branch branch, std::int64_t heads, std::int64_t groups) const {
    const bool pooled = branch == kCompressed;
    return {.q = split_heads(q.view(), heads),
            .k = split_heads(pooled ? k_pooled.view() : k[branch].view(), groups),
            .k_shared = {},
            .v = split_heads(pooled ? v_pooled.view() : v[branch].view(), groups)};
  }
};

namespace {

PerBranch<Linear> branch_projections(const AttentionOptions& o, const std::string& prefix, const char* what, std::int64_t width) {
  const auto make = [&](Branch branch) {
    return to_heads(prefix + ".nsa." + kBranchNames[branch] + "." + what + ".weight", o, o.num_kv_heads, width, o.hidden_size);
  };
  return {make(kCompressed), make(kSelected), make(kWindow)};
}

}  // namespace

NsaGqaAttention::NsaGqaAttention(const AttentionOptions& o, const std::string& prefix, std::shared_ptr<const RopeTable> rope)
    : options_(o.own_heads()),
      nsa_(o.nsa.value()),
      rope_(std::move(rope)),
      branches_(nsa_, softmax_scale(o.qk_width(), o.rope), options_.num_kv_heads),
      q_proj_(to_heads(prefix + ".q_proj.weight", o, o.num_heads, o.head_dim, o.hidden_size)),
      k_proj_(branch_projections(o, prefix, "k_proj", o.head_dim)),
      v_proj_(branch_projections(o, prefix, "v_proj", o.v_head_dim)),
      phi_k_(nsa_, prefix + ".nsa.phi_k.weight", prefix + ".nsa.phi_k.position", o.head_dim, o.head_dim, o.storage()),
      phi_v_(nsa_, prefix + ".nsa.phi_v.weight", prefix + ".nsa.phi_v.position", o.v_head_dim, o.v_head_dim, o.storage()),
      gate_(o, prefix),
      o_proj_(from_heads(prefix + ".o_proj.weight", o)) {}

void NsaGqaAttention::collect(ParameterList& parameters) {
  q_proj_.collect(parameters);
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    k_proj_[branch].collect(parameters);
    v_proj_[branch].collect(parameters);
  }
  phi_k_.collect(parameters);
  phi_v_.collect(parameters);
  gate_.collect(parameters);
  o_proj_.collect(parameters);
}

Tensor NsaGqaAttention::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  NsaGqaSaved scratch;
  NsaGqaSaved* kept = make_saved<NsaGqaSaved>(saved);
  NsaGqaSaved& s = kept != nullptr ? *kept : scratch;
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads, rows = x.shape[0];

  s.x = x;
  s.q = q_proj_.apply(stream, x);
  rotate_tokens(*rope_, ctx, split_heads(s.q.view(), heads), split_heads(s.q.view(), heads));
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    s.k[branch] = k_proj_[branch].apply(stream, x);
    s.v[branch] = v_proj_[branch].apply(stream, x);
    s.o[branch] = Tensor::empty({rows, o_proj_.in()}, x.dtype, x.device);
    s.lse[branch] = Tensor::empty({rows, heads}, accumulation_dtype(x.dtype), x.device);
    if (branch == kCompressed) continue;
    rotate_tokens(*rope_, ctx, split_heads(s.k[branch].view(), groups), split_heads(s.k[branch].view(), groups));
  }
  gather_tokens(ctx, {&s.k[kCompressed], &s.k[kSelected], &s.k[kWindow], &s.v[kCompressed], &s.v[kSelected], &s.v[kWindow]});
  compress(ctx, s);

  const auto out = [&](Branch branch) { return split_heads(s.o[branch].view(), heads); };
  const AttentionInput compressed = s.input(kCompressed, heads, groups);
  const AttentionSpans entry_spans = entry_keys(ctx, nsa_).spans, token_spans = token_keys(ctx).spans;
  branches_.compressed(stream, entry_spans, compressed, out(kCompressed), s.lse[kCompressed]);
  s.blocks = held_.get([&] { return branches_.select(stream, entry_spans, compressed, s.lse[kCompressed]); });
  branches_.selected(stream, token_spans, s.input(kSelected, heads, groups), s.blocks, out(kSelected), s.lse[kSelected]);
  branches_.window(stream, window_spans(ctx, nsa_.window, token_keys(ctx)), s.input(kWindow, heads, groups), out(kWindow),
                   s.lse[kWindow]);
  s.mixed = gate_.forward(stream, x, s.o, s.gate);
  return o_proj_.apply(stream, s.mixed);
}

void NsaGqaAttention::compress(Context& ctx, NsaGqaSaved& s) const {
  Stream& stream = ctx.stream;
  const std::int64_t groups = options_.num_kv_heads, key = options_.head_dim, value = options_.v_head_dim;
  const ConstView k = s.k[kCompressed], v = s.v[kCompressed];
  const PoolSpans spans = pool_spans(ctx, nsa_);
  s.k_pooled = Tensor::empty({entry_rows(spans), groups * key}, k.dtype, k.device);
  s.v_pooled = Tensor::empty({entry_rows(spans), groups * value}, k.dtype, k.device);
  phi_k_.forward(stream, spans, k.reshape({k.shape[0] * groups, key}), split_heads(k, groups),
                 split_heads(s.k_pooled.view(), groups), s.phi_k);
  phi_v_.forward(stream, spans, v.reshape({v.shape[0] * groups, value}), split_heads(v, groups),
                 split_heads(s.v_pooled.view(), groups), s.phi_v);
  rotate_entries(*rope_, stream, spans, split_heads(s.k_pooled.view(), groups), nsa_.block_stride);
  gather_rows(ctx, entry_spacing(ctx, nsa_), {&s.k_pooled, &s.v_pooled});
}

Tensor NsaGqaAttention::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  auto& s = saved_as<NsaGqaSaved>(saved);
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads;

  s.d_y = d_y;
  Tensor d_x = Tensor::empty(s.x.shape, d_y.dtype, d_y.device);
  const PerBranch<Tensor> d_o = gate_.backward_input(stream, o_proj_.apply_transposed(stream, d_y), s.o, d_x, s.gate);
  Tensor d_k_pooled = key_gradient(ctx, s.k_pooled), d_v_pooled = key_gradient(ctx, s.v_pooled);
  PerBranch<Tensor> d_q;
  const auto gradient = [&](Branch branch, Tensor& d_k, Tensor& d_v) -> AttentionGradient {
    d_q[branch] = Tensor::empty(s.q.shape(), d_y.dtype, d_y.device);
    return {.o = split_heads(static_cast<ConstView>(s.o[branch]), heads),
            .lse = s.lse[branch],
            .d_o = split_heads(d_o[branch].view(), heads),
            .d_q = split_heads(d_q[branch].view(), heads),
            .d_k = split_heads(d_k.view(), groups),
            .d_k_shared = {},
            .d_v = split_heads(d_v.view(), groups),
            .add_to_keys = ctx.sequence != nullptr};
  };
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    s.d_k[branch] = key_gradient(ctx, s.k[branch]);
    s.d_v[branch] = key_gradient(ctx, s.v[branch]);
  }
  branches_.compressed_backward(stream, entry_keys(ctx, nsa_).spans, s.input(kCompressed, heads, groups),
                                gradient(kCompressed, d_k_pooled, d_v_pooled));
  branches_.selected_backward(stream, token_keys(ctx).spans, s.input(kSelected, heads, groups), s.blocks,
                              gradient(kSelected, s.d_k[kSelected], s.d_v[kSelected]));
  branches_.window_backward(stream, window_spans(ctx, nsa_.window, token_keys(ctx)), s.input(kWindow, heads, groups),
                            gradient(kWindow, s.d_k[kWindow], s.d_v[kWindow]));
  run(stream, kernels::Add{.a = d_q[kCompressed], .b = d_q[kSelected], .y = d_q[kCompressed]});
  run(stream, kernels::Add{.a = d_q[kCompressed], .b = d_q[kWindow], .y = d_q[kCompressed]});
  s.d_q = std::move(d_q[kCompressed]);
  compress_backward(ctx, d_k_pooled, d_v_pooled, s);
  reduce_scatter_tokens(
      ctx, {&s.d_k[kCompressed], &s.d_k[kSelected], &s.d_k[kWindow], &s.d_v[kCompressed], &s.d_v[kSelected], &s.d_v[kWindow]});

  const auto unrotate = [&](Tensor& x, std::int64_t count) {
    rotate_tokens(*rope_, ctx, split_heads(x.view(), count), split_heads(x.view(), count), RopeMode::kTranspose);
  };
  unrotate(s.d_q, heads);
  unrotate(s.d_k[kSelected], groups);
  unrotate(s.d_k[kWindow], groups);
  q_proj_.apply_transposed(stream, s.d_q, d_x, 1);
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    k_proj_[branch].apply_transposed(stream, s.d_k[branch], d_x, 1);
    v_proj_[branch].apply_transposed(stream, s.d_v[branch], d_x, 1);
    for (Tensor* done : {&s.o[branch], &s.lse[branch]}) done->reset();
    if (branch == kCompressed) continue;  // phi's weight gradients read these
    for (Tensor* done : {&s.k[branch], &s.v[branch]}) done->reset();
  }
  for (Tensor* done : {&s.q, &s.k_pooled, &s.v_pooled, &s.blocks}) done->reset();
  return d_x;
}

void NsaGqaAttention::compress_backward(Context& ctx, Tensor& d_k_pooled, Tensor& d_v_pooled, NsaGqaSaved& s) {
  Stream& stream = ctx.stream;
  const std::int64_t groups = options_.num_kv_heads, key = options_.head_dim, value = options_.v_head_dim;
  const PoolSpans spans = pool_spans(ctx, nsa_);
  const bool add = ctx.sequence != nullptr;
  const View d_k = s.d_k[kCompressed], d_v = s.d_v[kCompressed];
  reduce_scatter_rows(ctx, entry_spacing(ctx, nsa_), entry_rows(spans), {&d_k_pooled, &d_v_pooled});
  rotate_entries(*rope_, stream, spans, split_heads(d_k_pooled.view(), groups), nsa_.block_stride, RopeMode::kTranspose);
  phi_k_.backward_input(stream, spans, split_heads(s.k[kCompressed].view(), groups), split_heads(d_k_pooled.view(), groups),
                        split_heads(d_k, groups), add, d_k.reshape({d_k.shape[0] * groups, key}), s.phi_k);
  phi_v_.backward_input(stream, spans, split_heads(s.v[kCompressed].view(), groups), split_heads(d_v_pooled.view(), groups),
                        split_heads(d_v, groups), add, d_v.reshape({d_v.shape[0] * groups, value}), s.phi_v);
}

void NsaGqaAttention::backward_weight(Context& ctx, Saved& saved) {
  auto& s = saved_as<NsaGqaSaved>(saved);
  Stream& stream = ctx.stream;
  const std::int64_t groups = options_.num_kv_heads;
  o_proj_.accumulate(stream, s.d_y, s.mixed);
  q_proj_.accumulate(stream, s.d_q, s.x);
  for (const Branch branch : {kCompressed, kSelected, kWindow}) {
    k_proj_[branch].accumulate(stream, s.d_k[branch], s.x);
    v_proj_[branch].accumulate(stream, s.d_v[branch], s.x);
  }
  const ConstView k = s.k[kCompressed], v = s.v[kCompressed];
  const PoolSpans spans = pool_spans(ctx, nsa_);
  phi_k_.backward_weight(stream, spans, k.reshape({k.shape[0] * groups, options_.head_dim}), s.phi_k);
  phi_v_.backward_weight(stream, spans, v.reshape({v.shape[0] * groups, options_.v_head_dim}), s.phi_v);
  gate_.backward_weight(stream, s.x, s.gate);
}

}  // namespace hadal::nn
