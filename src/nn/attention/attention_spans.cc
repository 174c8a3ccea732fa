#include "nn/attention/attention_spans.h"

#include <algorithm>

#include "kernels/nsa.h"

namespace hadal::nn {
namespace {

std::int64_t entries_of(const NsaOptions& nsa, std::int64_t tokens) {
  return kernels::num_compressed(tokens, nsa.block_length, nsa.block_stride);
}

/// One past the last position here.
std::int64_t end_position(const Context& ctx) {
  const Segment& last = ctx.sequence->segments().back();
  return last.position + last.length;
}

/// `count` keys of each whole sequence; the tokens before `position` see the first keys_before(position).
template <class KeysBefore>
KeyPlan keys_in_place(const Context& ctx, std::int64_t count, const KeysBefore& keys_before) {
  const std::int64_t rows = ctx.batch * count;
  KeyPlan plan{.rows = rows, .ranges = {{0, 0, rows}}, .spans = {}};
  if (ctx.sequence == nullptr) {
    plan.spans.push_back({.batch = ctx.batch, .queries = ctx.batch * ctx.seq, .keys = rows});
    return plan;
  }
  std::int64_t row = 0;
  for (std::int64_t b = 0; b < ctx.batch; ++b) {
    for (const Segment& segment : ctx.sequence->segments()) {
      plan.spans.push_back({.query = row,
                            .queries = segment.length,
                            .key = b * count,
                            .keys = keys_before(segment.position + segment.length),
                            .shared = b * count,
                            .query_start = segment.position});
      row += segment.length;
    }
  }
  return plan;
}

/// Of `count` keys of each sequence, the first `used`.
KeyPlan packed(const Context& ctx, KeyPlan plan, std::int64_t count, std::int64_t used) {
  plan.rows = ctx.batch * used;
  plan.ranges.clear();
  for (std::int64_t b = 0; b < ctx.batch; ++b) plan.ranges.push_back({b * count, b * used, used});
  for (AttentionSpan& span : plan.spans) span.key = count == 0 ? 0 : span.shared / count * used;
  return plan;
}

}  // namespace

KeyPlan token_keys(const Context& ctx) {
  return keys_in_place(ctx, ctx.whole_seq(), [](std::int64_t position) { return position; });
}

KeyPlan causal_keys(const Context& ctx) {
  if (ctx.sequence == nullptr) return token_keys(ctx);
  return packed(ctx, token_keys(ctx), ctx.whole_seq(), end_position(ctx));
}

KeyPlan entry_keys(const Context& ctx, const NsaOptions& nsa) {
  return keys_in_place(ctx, entries_of(nsa, ctx.whole_seq()), [&](std::int64_t position) { return entries_of(nsa, position); });
}

KeyPlan causal_entry_keys(const Context& ctx, const NsaOptions& nsa) {
  if (ctx.sequence == nullptr) return entry_keys(ctx, nsa);
  return packed(ctx, entry_keys(ctx, nsa), entries_of(nsa, ctx.whole_seq()), entries_of(nsa, end_position(ctx)));
}

AttentionSpans window_spans(const Context& ctx, std::int64_t window, const KeyPlan& plan) {
  AttentionSpans spans = plan.spans;
  if (ctx.sequence == nullptr) return spans;
  for (AttentionSpan& span : spans) {
    const std::int64_t begin = std::max<std::int64_t>(0, span.query_start - window + 1);
    span.key += begin;
    span.shared += begin;
    span.keys -= begin;
    span.query_start -= begin;
  }
  return spans;
}

KeyPlan window_keys(const Context& ctx, std::int64_t window) {
  KeyPlan plan = token_keys(ctx);
  if (ctx.sequence == nullptr) return plan;
  plan = {.rows = 0, .ranges = {}, .spans = window_spans(ctx, window, plan)};
  for (AttentionSpan& span : plan.spans) {
    span.key = plan.rows;
    plan.ranges.push_back({span.shared, span.key, span.keys});
    plan.rows += span.keys;
  }
  return plan;
}

RowSpacing entry_spacing(const Context& ctx, const NsaOptions& nsa) {
  return {nsa.block_stride, entries_of(nsa, ctx.whole_seq())};
}

PoolSpans pool_spans(const Context& ctx, const NsaOptions& nsa) {
  const RowSpacing spacing = entry_spacing(ctx, nsa);
  if (ctx.sequence == nullptr) {
    return {{.batch = ctx.batch, .tokens = ctx.batch * ctx.seq, .entries = ctx.batch * spacing.count}};
  }
  const std::vector<Segment> entries = rows_in(ctx.sequence->segments(), spacing);
  PoolSpans spans;
  for (std::int64_t b = 0; b < ctx.batch; ++b) {
    for (const Segment& own : entries) {
      const std::int64_t position = own.position * nsa.block_stride;
      spans.push_back({.token = b * ctx.whole_seq() + position,
                       .tokens = (own.length - 1) * nsa.block_stride + nsa.block_length,
                       .entry = entry_rows(spans),
                       .entries = own.length,
                       .position = position});
    }
  }
  return spans;
}

std::int64_t entry_rows(const PoolSpans& spans) { return spans.empty() ? 0 : spans.back().entry + spans.back().entries; }

void attend(Stream& stream, const AttentionSpans& spans, const kernels::AttentionMask& mask, double scale,
            const AttentionInput& in, kernels::Heads o, View lse) {
  for (const AttentionSpan& span : spans) {
    kernels::FlashAttentionForward args;
    set_inputs(args, span, in);
    args.mask = mask;
    args.scale = scale;
    args.o = rows_of(o, span.query, span.queries);
    args.lse = lse.rows(span.query, span.query + span.queries);
    run(stream, args);
  }
}

void attend_backward(Stream& stream, const AttentionSpans& spans, const kernels::AttentionMask& mask, double scale,
                     const AttentionInput& in, const AttentionGradient& gradient) {
  for (const AttentionSpan& span : spans) {
    kernels::FlashAttentionBackward args;
    set_inputs(args, span, in);
    args.mask = mask;
    args.scale = scale;
    set_gradients(args, span, gradient);
    run(stream, args);
  }
}

}  // namespace hadal::nn
