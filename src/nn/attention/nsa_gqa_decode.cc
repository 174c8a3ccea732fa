#include "nn/attention/nsa_gqa_attention.h"
#include "nn/attention/nsa_gqa_cache.h"
#include "nn/attention/rotate_tokens.h"
#include "nn/attention/split_heads.h"

namespace hadal::nn {

std::unique_ptr<AttentionCache> NsaGqaAttention::make_cache(std::int64_t max_tokens) const {
  return std::make_unique<NsaGqaCache>(max_tokens, options_);
}

Tensor NsaGqaAttention::decode(Context& ctx, ConstView x, AttentionCache& attention_cache) {
  auto& cache = static_cast<NsaGqaCache&>(attention_cache);
  Stream& stream = ctx.stream;
  const std::int64_t heads = options_.num_heads, groups = options_.num_kv_heads, key = options_.head_dim,
                     value = options_.v_head_dim;
  const std::int64_t rows = x.shape[0], start = cache.length(), total = start + rows;

  Tensor q = q_proj_.apply(stream, x);
  rope_->apply(stream, 1, split_heads(q.view(), heads), split_heads(q.view(), heads), RopeMode::kForward, start);
  const auto append = [&](Branch branch, auto& k_rows, auto& v_rows) {
    const View k = k_rows.append(rows);
    k_proj_[branch].apply(stream, x, k);
    v_proj_[branch].apply(stream, x, v_rows.append(rows));
    if (branch != kCompressed) rope_->apply(stream, 1, split_heads(k, groups), split_heads(k, groups), RopeMode::kForward, start);
  };
  append(kCompressed, cache.k_raw, cache.v_raw);
  append(kSelected, cache.k, cache.v);
  append(kWindow, cache.k_window, cache.v_window);

  // Entries whose last token is among the new ones.
  const std::int64_t first_entry = cache.k_pooled.length(), new_entries = branches_.num_compressed(total) - first_entry;
  if (new_entries > 0) {
    const std::int64_t begin = first_entry * nsa_.block_stride,
                       end = begin + (new_entries - 1) * nsa_.block_stride + nsa_.block_length;
    const View k_raw = cache.k_raw.rows(begin, end), v_raw = cache.v_raw.rows(begin, end);
    const kernels::Heads pooled = split_heads(cache.k_pooled.append(new_entries), groups);
    GatedPooling::State scratch;
    const PoolSpans spans{{.tokens = end - begin, .entries = new_entries, .position = begin}};
    phi_k_.forward(stream, spans, k_raw.reshape({(end - begin) * groups, key}), split_heads(k_raw, groups), pooled, scratch);
    phi_v_.forward(stream, spans, v_raw.reshape({(end - begin) * groups, value}), split_heads(v_raw, groups),
                   split_heads(cache.v_pooled.append(new_entries), groups), scratch);
    rotate_entries(*rope_, stream, spans, pooled, nsa_.block_stride);
  }

  const auto input = [&](ConstView k, ConstView v) -> AttentionInput {
    return {.q = split_heads(q.view(), heads), .k = split_heads(k, groups), .k_shared = {}, .v = split_heads(v, groups)};
  };
  PerBranch<Tensor> o;
  for (Tensor& branch : o) branch = Tensor::empty({rows, heads * value}, x.dtype, x.device);
  Tensor lse = Tensor::empty({rows, heads}, accumulation_dtype(x.dtype), x.device);
  const AttentionInput compressed = input(cache.k_pooled.all(), cache.v_pooled.all());
  const AttentionSpans entry_spans = one_span(rows, cache.k_pooled.length(), start);
  branches_.compressed(stream, entry_spans, compressed, split_heads(o[kCompressed].view(), heads), lse);
  const Tensor blocks = branches_.select(stream, entry_spans, compressed, lse);
  branches_.selected(stream, one_span(rows, total, start), input(cache.k.all(), cache.v.all()), blocks,
                     split_heads(o[kSelected].view(), heads), lse);
  const std::int64_t window_begin = std::max<std::int64_t>(0, start - nsa_.window + 1);
  branches_.window(stream, one_span(rows, total - window_begin, start - window_begin),
                   input(cache.k_window.rows(window_begin, total), cache.v_window.rows(window_begin, total)),
                   split_heads(o[kWindow].view(), heads), lse);
  BranchGate::State gate;
  return o_proj_.apply(stream, gate_.forward(stream, x, o, gate));
}

}  // namespace hadal::nn
