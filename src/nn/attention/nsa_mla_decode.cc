#include <algorithm>

#include "nn/attention/nsa_mla_attention.h"
#include "nn/attention/nsa_mla_cache.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {

using kernels::heads_of;

std::unique_ptr<AttentionCache> NsaMlaAttention::make_cache(std::int64_t max_tokens) const {
  return std::make_unique<NsaMlaCache>(max_tokens, options_);
}

Tensor NsaMlaAttention::decode(Context& ctx, ConstView x, AttentionCache& attention_cache) {
  auto& cache = static_cast<NsaMlaCache&>(attention_cache);
  Stream& stream = ctx.stream;
  const std::int64_t rows = x.shape[0], start = cache.length();
  MlaProjections::State latent;
  latent.kv_a = cache.kv_a.append(rows);
  latent.c = cache.c.append(rows);
  projections_.forward(stream, x, latent);
  rope_->apply(stream, 1, projections_.r(latent.kv_a), split_heads(cache.k_rope.append(rows), 1), RopeMode::kForward, start);
  append_compressed(stream, cache);
  PerBranch<Tensor> o;
  decode_branches(stream, latent.q, start, cache, o);
  BranchGate::State gate;
  return o_proj_.apply(stream, gate_.forward(stream, x, o, gate));
}

void NsaMlaAttention::append_compressed(Stream& stream, NsaMlaCache& cache) const {
  const std::int64_t first = cache.c_pooled.length(), count = branches_.num_compressed(cache.length()) - first;
  if (count == 0) return;
  const std::int64_t begin = first * nsa_.block_stride, end = begin + (count - 1) * nsa_.block_stride + nsa_.block_length;
  const View c = cache.c.rows(begin, end);
  Tensor pooled = Tensor::empty({count, options_.kv_lora_rank}, c.dtype, c.device);
  Tensor inverse_rms = Tensor::empty({count}, accumulation_dtype(c.dtype), c.device);
  GatedPooling::State scratch;
  const PoolSpans spans{{.tokens = end - begin, .entries = count, .position = begin}};
  pool_latent_.forward(stream, spans, c, split_heads(c, 1), split_heads(pooled.view(), 1), scratch);
  norm_pooled(stream, pooled, cache.c_pooled.append(count), inverse_rms);
  const kernels::Heads k_rope = split_heads(cache.k_rope_pooled.append(count), 1);
  pool_rope_.forward(stream, spans, c, projections_.r(cache.kv_a.rows(begin, end)), k_rope, scratch);
  rotate_entries(*rope_, stream, spans, k_rope, nsa_.block_stride);
}

void NsaMlaAttention::decode_branches(Stream& stream, View q, std::int64_t start, NsaMlaCache& cache,
                                      PerBranch<Tensor>& o) const {
  const std::int64_t heads = options_.num_heads, rank = options_.kv_lora_rank, rope = options_.qk_rope_head_dim;
  const std::int64_t rows = q.shape[0], total = start + rows, entries = cache.c_pooled.length();
  const std::int64_t window_begin = std::max<std::int64_t>(0, start - nsa_.window + 1);
  Tensor lse = Tensor::empty({rows, heads}, accumulation_dtype(q.dtype), q.device);
  // Queries in the latent space, with the rotated columns that all branches share; z likewise is reused.
  Tensor q_latent = Tensor::empty({rows, heads * (rank + rope)}, q.dtype, q.device), z = Tensor::empty({rows, heads * rank}, q.dtype, q.device);
  rope_->apply(stream, 1, projections_.q_rope(q), heads_of(q_latent.view(), heads, rank + rope, rank, rope), RopeMode::kForward,
               start);
  rope_->apply(stream, 1, projections_.q_rope(q), projections_.q_rope(q), RopeMode::kForward, start);
  const KvUpProjection* absorbed_by = nullptr;

  // Runs `attend` on the branch in whichever form is cheaper.
  const auto attend_in = [&](Branch branch, ConstView c, ConstView k_rope, std::int64_t pairs, auto&& attend) {
    const KvUpProjection& projection = up(branch);
    o[branch] = Tensor::empty({rows, o_proj_.in()}, q.dtype, q.device);
    const kernels::Heads out = split_heads(o[branch].view(), heads);
    AttentionInput in{.q = projections_.q_all(q), .k = {}, .k_shared = split_heads(k_rope, 1), .v = {}};
    if (!projection.absorbing_pays(options_.latent_mode, rows, pairs, c.shape[0])) {
      Tensor kv = projection.linear().apply(stream, c);
      in.k = projection.keys(kv.view());
      in.v = projection.values(kv.view());
      attend(in, out);
      return;
    }
    if (absorbed_by != &projection) {
      projection.absorb(stream, projections_.q_nope(q), heads_of(q_latent.view(), heads, rank + rope, 0, rank));
      absorbed_by = &projection;
    }
    in.q = split_heads(q_latent.view(), heads);
    in.k = in.v = split_heads(c, 1);
    attend(in, split_heads(z.view(), heads));
    projection.expand(stream, split_heads(z.view(), heads), out);
  };

  Tensor blocks;
  attend_in(kCompressed, cache.c_pooled.all(), cache.k_rope_pooled.all(), rows * entries,
            [&](const AttentionInput& in, kernels::Heads out) {
              const AttentionSpans spans = one_span(rows, entries, start);
              branches_.compressed(stream, spans, in, out, lse);
              blocks = branches_.select(stream, spans, in, lse);
            });
  attend_in(kSelected, cache.c.all(), cache.k_rope.all(), rows * std::min(total, nsa_.num_selected * nsa_.select_block),
            [&](const AttentionInput& in, kernels::Heads out) {
              branches_.selected(stream, one_span(rows, total, start), in, blocks, out, lse);
            });
  attend_in(kWindow, cache.c.rows(window_begin, total), cache.k_rope.rows(window_begin, total),
            rows * std::min(total, nsa_.window), [&](const AttentionInput& in, kernels::Heads out) {
              branches_.window(stream, one_span(rows, total - window_begin, start - window_begin), in, out, lse);
            });
}

}  // namespace hadal::nn
