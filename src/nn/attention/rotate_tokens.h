// Rotation of the rows here, each by its own position in its sequence.
#pragma once

#include "nn/attention/attention_spans.h"
#include "nn/rope.h"

namespace hadal::nn {

/// x, y [B*s, G, width]; y may be x.
inline void rotate_tokens(const RopeTable& rope, const Context& ctx, kernels::ConstHeads x, kernels::Heads y,
                          RopeMode mode = RopeMode::kForward) {
  if (ctx.sequence == nullptr) {
    rope.apply(ctx.stream, ctx.batch, x, y, mode);
    return;
  }
  std::int64_t row = 0;
  for (std::int64_t b = 0; b < ctx.batch; ++b) {
    for (const Segment& segment : ctx.sequence->segments()) {
      rope.apply(ctx.stream, 1, rows_of(x, row, segment.length), rows_of(y, row, segment.length), mode, segment.position);
      row += segment.length;
    }
  }
}

/// Rotates each compressed entry by the position of its block's first token; x [entries, G, width], in place.
inline void rotate_entries(const RopeTable& rope, Stream& stream, const PoolSpans& spans, kernels::Heads x,
                           std::int64_t block_stride, RopeMode mode = RopeMode::kForward) {
  for (const PoolSpan& span : spans) {
    const kernels::Heads entries = rows_of(x, span.entry, span.entries);
    rope.apply(stream, span.batch, entries, entries, mode, span.position, block_stride);
  }
}

}  // namespace hadal::nn
