#include "nn/attention/gqa_attention.h"

#include <utility>

#include "kernels/flash_attention.h"
#include "nn/attention/cache_rows.h"
#include "nn/attention/head_linear.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {
namespace {

struct GqaSaved : Saved {
  ConstView x, d_y;
  Tensor q, k, v;  ///< [T, H dk] and [T, G dk], rotated; [T, G dv]
  Tensor o, lse;   ///< [T, H dv], [T, H]
  Tensor d_q, d_k, d_v;
};

class GqaCache : public AttentionCache {
 public:
  GqaCache(std::int64_t max_tokens, const AttentionOptions& o)
      : k(max_tokens, o.num_kv_heads * o.head_dim, o.dtype), v(max_tokens, o.num_kv_heads * o.v_head_dim, o.dtype) {}
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
  rope_->apply(ctx.stream, ctx.batch, split_heads(s.q.view(), heads), split_heads(s.q.view(), heads));
  rope_->apply(ctx.stream, ctx.batch, split_heads(s.k.view(), groups), split_heads(s.k.view(), groups));
  s.o = Tensor::empty({x.shape[0], o_proj_.in()}, x.dtype);
  s.lse = Tensor::empty({x.shape[0], heads}, x.dtype);
  run(ctx.stream, kernels::FlashAttentionForward{.batch = ctx.batch,
                                                 .q = split_heads(s.q.view(), heads),
                                                 .k = split_heads(s.k.view(), groups),
                                                 .v = split_heads(s.v.view(), groups),
                                                 .mask = {},
                                                 .scale = scale_,
                                                 .o = split_heads(s.o.view(), heads),
                                                 .lse = s.lse});
  return o_proj_.apply(ctx.stream, s.o);
}

Tensor GqaAttention::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  auto& s = saved_as<GqaSaved>(saved);
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads;
  s.d_y = d_y;
  Tensor d_o = o_proj_.apply_transposed(ctx.stream, d_y);
  s.d_q = Tensor::empty(s.q.shape(), d_y.dtype);
  s.d_k = Tensor::empty(s.k.shape(), d_y.dtype);
  s.d_v = Tensor::empty(s.v.shape(), d_y.dtype);
  run(ctx.stream, kernels::FlashAttentionBackward{.batch = ctx.batch,
                                                  .q = split_heads(s.q.view(), heads),
                                                  .k = split_heads(s.k.view(), groups),
                                                  .v = split_heads(s.v.view(), groups),
                                                  .mask = {},
                                                  .scale = scale_,
                                                  .o = split_heads(s.o.view(), heads),
                                                  .lse = s.lse,
                                                  .d_o = split_heads(d_o.view(), heads),
                                                  .d_q = split_heads(s.d_q.view(), heads),
                                                  .d_k = split_heads(s.d_k.view(), groups),
                                                  .d_v = split_heads(s.d_v.view(), groups)});
  for (Tensor* done : {&s.q, &s.k, &s.v, &s.lse}) done->reset();
  rope_->apply(ctx.stream, ctx.batch, split_heads(s.d_q.view(), heads), split_heads(s.d_q.view(), heads), RopeMode::kTranspose);
  rope_->apply(ctx.stream, ctx.batch, split_heads(s.d_k.view(), groups), split_heads(s.d_k.view(), groups), RopeMode::kTranspose);
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
  Tensor o = Tensor::empty({rows, o_proj_.in()}, x.dtype);
  Tensor lse = Tensor::empty({rows, heads}, x.dtype);
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
