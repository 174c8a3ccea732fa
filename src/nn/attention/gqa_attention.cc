#include "nn/attention/gqa_attention.h"

#include <utility>

#include "kernels/flash_attention.h"
#include "nn/attention/cache_rows.h"
#include "nn/attention/gather_tokens.h"
#include "nn/attention/head_linear.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {

struct GqaSaved : Saved {
  ConstView x, d_y;
  Tensor q;       ///< [T, H dk], rotated
  Tensor k, v;    ///< of whole sequences: [B*S, G dk] rotated, [B*S, G dv]
  Tensor o, lse;  ///< [T, H dv], [T, H]
  Tensor d_q, d_k, d_v;
};

namespace {

class GqaCache : public AttentionCache {
 public:
  GqaCache(std::int64_t max_tokens, const AttentionOptions& o)
      : k(max_tokens, o.num_kv_heads * o.head_dim, o.storage()), v(max_tokens, o.num_kv_heads * o.v_head_dim, o.storage()) {}
  std::int64_t length() const override { return k.length(); }
  void truncate(std::int64_t length) override {
    HADAL_CHECK(length >= 0 && length <= k.length(), "{} of {} tokens", length, k.length());
    k.truncate(length);
    v.truncate(length);
  }
  double bytes_per_token() const override {
    return length() == 0 ? 0.0 : (k.bytes() + v.bytes()) / static_cast<double>(length());
  }

  CacheRows k;  ///< rotated
  CacheRows v;
};

}  // namespace

GqaAttention::GqaAttention(const AttentionOptions& o, const std::string& prefix, std::shared_ptr<const RopeTable> rope)
    : options_(o.own_heads()),
      scale_(softmax_scale(o.qk_width(), o.rope)),
      rope_(std::move(rope)),
      q_proj_(to_heads(prefix + ".q_proj.weight", o, o.num_heads, o.head_dim, o.hidden_size)),
      k_proj_(to_heads(prefix + ".k_proj.weight", o, o.num_kv_heads, o.head_dim, o.hidden_size)),
      v_proj_(to_heads(prefix + ".v_proj.weight", o, o.num_kv_heads, o.v_head_dim, o.hidden_size)),
      o_proj_(from_heads(prefix + ".o_proj.weight", o)) {}

void GqaAttention::collect(ParameterList& parameters) {
  for (Linear* linear : {&q_proj_, &k_proj_, &v_proj_, &o_proj_}) linear->collect(parameters);
}

Tensor GqaAttention::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  GqaSaved scratch;
  GqaSaved* kept = make_saved<GqaSaved>(saved);
  GqaSaved& s = kept != nullptr ? *kept : scratch;
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads;
  s.x = x;
  s.q = q_proj_.apply(ctx.stream, x);
  s.k = k_proj_.apply(ctx.stream, x);
  s.v = v_proj_.apply(ctx.stream, x);
  rotate_tokens(*rope_, ctx, split_heads(s.q.view(), heads), split_heads(s.q.view(), heads));
  rotate_tokens(*rope_, ctx, split_heads(s.k.view(), groups), split_heads(s.k.view(), groups));
  gather_tokens(ctx, {&s.k, &s.v});
  s.o = Tensor::empty({x.shape[0], o_proj_.in()}, x.dtype, x.device);
  s.lse = Tensor::empty({x.shape[0], heads}, accumulation_dtype(x.dtype), x.device);
  attend(ctx.stream, token_keys(ctx).spans, {}, scale_, input(s), split_heads(s.o.view(), heads), s.lse);
  return o_proj_.apply(ctx.stream, s.o);
}

AttentionInput GqaAttention::input(const GqaSaved& s) const {
  return {.q = split_heads(s.q.view(), options_.num_heads),
          .k = split_heads(s.k.view(), options_.num_kv_heads),
          .k_shared = {},
          .v = split_heads(s.v.view(), options_.num_kv_heads)};
}

Tensor GqaAttention::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  auto& s = saved_as<GqaSaved>(saved);
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads;
  s.d_y = d_y;
  Tensor d_o = o_proj_.apply_transposed(ctx.stream, d_y);
  s.d_q = Tensor::empty(s.q.shape(), d_y.dtype, d_y.device);
  s.d_k = key_gradient(ctx, s.k);
  s.d_v = key_gradient(ctx, s.v);
  attend_backward(ctx.stream, token_keys(ctx).spans, {}, scale_, input(s),
                  {.o = split_heads(s.o.view(), heads),
                   .lse = s.lse,
                   .d_o = split_heads(d_o.view(), heads),
                   .d_q = split_heads(s.d_q.view(), heads),
                   .d_k = split_heads(s.d_k.view(), groups),
                   .d_k_shared = {},
                   .d_v = split_heads(s.d_v.view(), groups),
                   .add_to_keys = ctx.sequence != nullptr});
  for (Tensor* done : {&s.q, &s.k, &s.v, &s.lse}) done->reset();
  reduce_scatter_tokens(ctx, {&s.d_k, &s.d_v});
  rotate_tokens(*rope_, ctx, split_heads(s.d_q.view(), heads), split_heads(s.d_q.view(), heads), RopeMode::kTranspose);
  rotate_tokens(*rope_, ctx, split_heads(s.d_k.view(), groups), split_heads(s.d_k.view(), groups), RopeMode::kTranspose);
  Tensor d_x = q_proj_.apply_transposed(ctx.stream, s.d_q);
  k_proj_.apply_transposed(ctx.stream, s.d_k, d_x, 1);
  v_proj_.apply_transposed(ctx.stream, s.d_v, d_x, 1);
  return d_x;
}

void GqaAttention::backward_weight(Context& ctx, Saved& saved) {
  auto& s = saved_as<GqaSaved>(saved);
  o_proj_.accumulate(ctx.stream, s.d_y, s.o);
  q_proj_.accumulate(ctx.stream, s.d_q, s.x);
  k_proj_.accumulate(ctx.stream, s.d_k, s.x);
  v_proj_.accumulate(ctx.stream, s.d_v, s.x);
}

std::unique_ptr<AttentionCache> GqaAttention::make_cache(std::int64_t max_tokens) const {
  return std::make_unique<GqaCache>(max_tokens, options_);
}

Tensor GqaAttention::decode(Context& ctx, ConstView x, AttentionCache& attention_cache) {
  auto& cache = static_cast<GqaCache&>(attention_cache);
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads;
  const std::int64_t rows = x.shape[0], start = cache.length();
  Tensor q = q_proj_.apply(ctx.stream, x);
  const View k = cache.k.append(rows);
  k_proj_.apply(ctx.stream, x, k);
  v_proj_.apply(ctx.stream, x, cache.v.append(rows));
  rope_->apply(ctx.stream, 1, split_heads(q.view(), heads), split_heads(q.view(), heads), RopeMode::kForward, start);
  rope_->apply(ctx.stream, 1, split_heads(k, groups), split_heads(k, groups), RopeMode::kForward, start);
  Tensor o = Tensor::empty({rows, o_proj_.in()}, x.dtype, x.device);
  Tensor lse = Tensor::empty({rows, heads}, accumulation_dtype(x.dtype), x.device);
  run(ctx.stream, kernels::FlashAttentionForward{.q = split_heads(q.view(), heads),
                                                 .k = split_heads(cache.k.all(), groups),
                                                 .v = split_heads(cache.v.all(), groups),
                                                 .mask = {},
                                                 .query_start = start,
                                                 .scale = scale_,
                                                 .o = split_heads(o.view(), heads),
                                                 .lse = lse});
  return o_proj_.apply(ctx.stream, o);
}

}  // namespace hadal::nn
