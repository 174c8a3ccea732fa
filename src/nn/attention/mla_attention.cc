#include "nn/attention/mla_attention.h"

#include <array>
#include <utility>

#include "kernels/flash_attention.h"
#include "nn/attention/cache_rows.h"
#include "nn/attention/head_linear.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {

using kernels::heads_of;

struct MlaSaved : Saved {
  MlaProjections::State latent;  ///< its q and the last columns of kv_a are rotated
  Tensor c, k_rope;              ///< context parallelism: [B*S, R] and [B*S, dr] of whole sequences
  Tensor kv;                     ///< [keys, H (dn + dv)]; context parallelism: made again in the backward pass
  Tensor o;                      ///< [T, H dv]
  Tensor lse;                    ///< [T, H]
  Tensor d_kv;
  ConstView d_y;
};

namespace {

class MlaCache : public AttentionCache {
 public:
  MlaCache(std::int64_t max_tokens, const AttentionOptions& o)
      : c(max_tokens, o.kv_lora_rank, o.storage()), k_rope(max_tokens, o.qk_rope_head_dim, o.storage()) {}
  std::int64_t length() const override { return c.length(); }
  void truncate(std::int64_t length) override {
    HADAL_CHECK(length >= 0 && length <= c.length(), "{} of {} tokens", length, c.length());
    c.truncate(length);
    k_rope.truncate(length);
  }
  double bytes_per_token() const override {
    return length() == 0 ? 0.0 : (c.bytes() + k_rope.bytes()) / static_cast<double>(length());
  }

  CacheRows c;       ///< [tokens, R], normed
  CacheRows k_rope;  ///< [tokens, dr], rotated
};

}  // namespace

MlaAttention::MlaAttention(const AttentionOptions& options, const std::string& prefix, std::shared_ptr<const RopeTable> rope)
    : options_(options.own_heads()),
      scale_(softmax_scale(options.qk_width(), options.rope)),
      rope_(std::move(rope)),
      projections_(options, prefix),
      kv_b_(options, prefix + ".kv_b_proj.weight"),
      o_proj_(from_heads(prefix + ".o_proj.weight", options)) {}

void MlaAttention::collect(ParameterList& parameters) {
  projections_.collect(parameters);
  kv_b_.linear().collect(parameters);
  o_proj_.collect(parameters);
}

Tensor MlaAttention::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  MlaSaved scratch;
  MlaSaved* kept = make_saved<MlaSaved>(saved);
  MlaSaved& s = kept != nullptr ? *kept : scratch;
  MlaProjections::State& latent = s.latent;
  projections_.forward(ctx.stream, x, latent);
  rotate_tokens(*rope_, ctx, projections_.q_rope(latent.q.view()), projections_.q_rope(latent.q.view()));
  rotate_tokens(*rope_, ctx, projections_.r(latent.kv_a), projections_.r(latent.kv_a));
  if (ctx.sequence != nullptr) gather_latents(ctx, s);
  s.o = Tensor::empty({x.shape[0], o_proj_.in()}, x.dtype, x.device);
  s.lse = Tensor::empty({x.shape[0], options_.num_heads}, accumulation_dtype(x.dtype), x.device);
  const KeyPlan keys = causal_keys(ctx);
  s.kv = kv_b_.project(ctx.stream, keys, latents(s));
  attend(ctx.stream, keys.spans, {}, scale_, input(s), split_heads(s.o.view(), options_.num_heads), s.lse);
  if (ctx.sequence != nullptr) s.kv.reset();
  return o_proj_.apply(ctx.stream, s.o);
}

void MlaAttention::gather_latents(Context& ctx, MlaSaved& s) const {
  const std::int64_t rows = ctx.batch * ctx.whole_seq();
  s.c = Tensor::empty({rows, options_.kv_lora_rank}, s.latent.c.dtype, s.latent.c.device);
  s.k_rope = Tensor::empty({rows, options_.qk_rope_head_dim}, s.latent.c.dtype, s.latent.c.device);
  ctx.sequence->gather(ctx.stream, ctx.batch, {1, ctx.whole_seq()},
                       std::array<kernels::ConstHeads, 2>{split_heads(s.latent.c, 1), projections_.r(s.latent.kv_a)},
                       std::array<kernels::Heads, 2>{split_heads(s.c.view(), 1), split_heads(s.k_rope.view(), 1)});
}

ConstView MlaAttention::latents(const MlaSaved& s) { return s.c.defined() ? s.c.view() : static_cast<ConstView>(s.latent.c); }

AttentionInput MlaAttention::input(const MlaSaved& s) const {
  return {
      .q = projections_.q_all(s.latent.q.view()),
      .k = kv_b_.keys(s.kv.view()),
      .k_shared = s.k_rope.defined() ? split_heads(s.k_rope.view(), 1) : projections_.r(static_cast<ConstView>(s.latent.kv_a)),
      .v = kv_b_.values(s.kv.view())};
}

Tensor MlaAttention::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  auto& s = saved_as<MlaSaved>(saved);
  MlaProjections::State& latent = s.latent;
  const bool whole = ctx.sequence == nullptr;
  const KeyPlan keys = causal_keys(ctx);
  s.d_y = d_y;
  const Tensor d_o = o_proj_.apply_transposed(ctx.stream, d_y);
  latent.d_q = Tensor::empty(latent.q.shape(), d_y.dtype, d_y.device);
  latent.d_kv_a = Tensor::empty(latent.kv_a.shape, d_y.dtype, d_y.device);
  latent.d_c = Tensor::empty(latent.c.shape, d_y.dtype, d_y.device);
  // Gradients of whole sequences: rows that the queries here do not see stay zero.
  Tensor d_c_all = whole ? Tensor() : Tensor::zeros(s.c.shape(), d_y.dtype, d_y.device);
  Tensor d_k_rope_all = whole ? Tensor() : Tensor::zeros(s.k_rope.shape(), d_y.dtype, d_y.device);
  const kernels::Heads d_k_rope = projections_.r(latent.d_kv_a.view());
  if (!whole) s.kv = kv_b_.project(ctx.stream, keys, s.c);
  s.d_kv = whole ? Tensor::empty(s.kv.shape(), d_y.dtype, d_y.device) : Tensor::zeros(s.kv.shape(), d_y.dtype, d_y.device);
  attend_backward(ctx.stream, keys.spans, {}, scale_, input(s),
                  {.o = split_heads(static_cast<ConstView>(s.o), options_.num_heads),
                   .lse = s.lse,
                   .d_o = split_heads(d_o.view(), options_.num_heads),
                   .d_q = projections_.q_all(latent.d_q.view()),
                   .d_k = kv_b_.keys(s.d_kv.view()),
                   .d_k_shared = whole ? d_k_rope : split_heads(d_k_rope_all.view(), 1),
                   .d_v = kv_b_.values(s.d_kv.view()),
                   .add_to_keys = !whole});
  for (Tensor* done : {&latent.q, &s.kv, &s.k_rope, &s.lse}) done->reset();
  rotate_tokens(*rope_, ctx, projections_.q_rope(latent.d_q.view()), projections_.q_rope(latent.d_q.view()),
                RopeMode::kTranspose);
  kv_b_.project_backward(ctx.stream, keys, s.d_kv, whole ? latent.d_c.view() : d_c_all.view(), 0);
  if (!whole) {
    ctx.sequence->reduce_scatter(
        ctx.stream, ctx.batch, {1, ctx.whole_seq()},
        std::array<kernels::ConstHeads, 2>{split_heads(d_c_all.view(), 1), split_heads(d_k_rope_all.view(), 1)},
        std::array<kernels::Heads, 2>{split_heads(latent.d_c.view(), 1), d_k_rope});
  }
  rotate_tokens(*rope_, ctx, d_k_rope, d_k_rope, RopeMode::kTranspose);
  Tensor d_x = Tensor::empty(latent.x.shape, d_y.dtype, d_y.device);
  projections_.backward_input(ctx.stream, latent, d_x, 0);
  return d_x;
}

void MlaAttention::backward_weight(Context& ctx, Saved& saved) {
  auto& s = saved_as<MlaSaved>(saved);
  o_proj_.accumulate(ctx.stream, s.d_y, s.o);
  kv_b_.project_weight(ctx.stream, causal_keys(ctx), s.d_kv, latents(s));
  projections_.backward_weight(ctx.stream, s.latent);
}

std::unique_ptr<AttentionCache> MlaAttention::make_cache(std::int64_t max_tokens) const {
  return std::make_unique<MlaCache>(max_tokens, options_);
}

Tensor MlaAttention::decode(Context& ctx, ConstView x, AttentionCache& attention_cache) {
  auto& cache = static_cast<MlaCache&>(attention_cache);
  Stream& stream = ctx.stream;
  const std::int64_t rows = x.shape[0], start = cache.length(), total = start + rows;
  const std::int64_t heads = options_.num_heads, rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim,
                     value = options_.v_head_dim;

  MlaProjections::State latent;
  latent.c = cache.c.append(rows);
  projections_.forward(stream, x, latent);
  rope_->apply(stream, 1, projections_.r(latent.kv_a), heads_of(cache.k_rope.append(rows), 1, rope, 0, rope), RopeMode::kForward,
               start);

  Tensor o = Tensor::empty({rows, heads * value}, x.dtype, x.device);
  const kernels::Heads o_heads = heads_of(o.view(), heads, value, 0, value);
  Tensor lse = Tensor::empty({rows, heads}, accumulation_dtype(x.dtype), x.device);
  const kernels::Heads q_rope = projections_.q_rope(latent.q.view());
  kernels::FlashAttentionForward attend;
  attend.k_shared = heads_of(cache.k_rope.all(), 1, rope, 0, rope);
  attend.query_start = start;
  attend.scale = scale_;
  attend.lse = lse;
  const std::int64_t pairs = rows * start + rows * (rows + 1) / 2;
  if (kv_b_.absorbing_pays(options_.latent_mode, rows, pairs, total)) {
    Tensor q = Tensor::empty({rows, heads * (rank + rope)}, x.dtype, x.device);
    Tensor z = Tensor::empty({rows, heads * rank}, x.dtype, x.device);
    kv_b_.absorb(stream, projections_.q_nope(latent.q.view()), heads_of(q.view(), heads, rank + rope, 0, rank));
    rope_->apply(stream, 1, q_rope, heads_of(q.view(), heads, rank + rope, rank, rope), RopeMode::kForward, start);
    attend.q = heads_of(q.view(), heads, rank + rope, 0, rank + rope);
    attend.k = attend.v = heads_of(cache.c.all(), 1, rank, 0, rank);
    attend.o = heads_of(z.view(), heads, rank, 0, rank);
    run(stream, attend);
    kv_b_.expand(stream, attend.o, o_heads);
  } else {
    rope_->apply(stream, 1, q_rope, q_rope, RopeMode::kForward, start);
    Tensor kv = kv_b_.linear().apply(stream, cache.c.all());
    attend.q = projections_.q_all(latent.q.view());
    attend.k = kv_b_.keys(kv.view());
    attend.v = kv_b_.values(kv.view());
    attend.o = o_heads;
    run(stream, attend);
  }
  return o_proj_.apply(stream, o);
}

}  // namespace hadal::nn
