#include "nn/attention/nsa_branches.h"

#include <algorithm>

#include "kernels/nsa.h"

namespace hadal::nn {
kernels::AttentionMask NsaBranches::block_mask() const {
  return {.kind = kernels::AttentionMask::Kind::kBlocks,
          .block_length = options_.block_length,
          .block_stride = options_.block_stride};
}

kernels::AttentionMask NsaBranches::window_mask() const {
  return {.kind = kernels::AttentionMask::Kind::kCausal, .window = options_.window};
}

std::int64_t NsaBranches::num_compressed(std::int64_t tokens) const {
  return kernels::num_compressed(tokens, options_.block_length, options_.block_stride);
}

void NsaBranches::compressed(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, kernels::Heads o,
                             View lse) const {
  attend(stream, spans, block_mask(), scale_, in, o, lse);
}

template <class Args>
void NsaBranches::set_selection(Args& args, const AttentionSpan& span, const AttentionInput& in, ConstView lse) const {
  args.batch = span.batch;
  args.query_start = span.query_start;
  args.q = rows_of(in.q, span.query, span.queries);
  args.k = rows_of(in.k, span.key, span.keys);
  args.k_shared = rows_of(in.k_shared, span.shared, span.keys);
  args.lse = lse.rows(span.query, span.query + span.queries);
  args.scale = scale_;
  args.block_length = options_.block_length;
  args.block_stride = options_.block_stride;
  args.select_block = options_.select_block;
  args.num_groups = select_groups_;
}

Tensor NsaBranches::select(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView lse) const {
  std::int64_t last_position = 0;
  for (const AttentionSpan& span : spans) {
    last_position = std::max(last_position, span.query_start + span.queries / span.batch - 1);
  }
  const std::int64_t num_blocks = last_position / options_.select_block + 1;
  Tensor blocks = Tensor::empty({in.q.tokens, select_groups_, std::min(options_.num_selected, num_blocks)}, DType::kI32, stream.device());
  if (selection_sum_ != nullptr) {
    select_by_sum(stream, spans, in, lse, blocks, num_blocks);
    return blocks;
  }
  for (const AttentionSpan& span : spans) {
    kernels::NsaSelect args;
    set_selection(args, span, in, lse);
    args.blocks = blocks.view().rows(span.query, span.query + span.queries);
    run(stream, args);
  }
  return blocks;
}

void NsaBranches::select_by_sum(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView lse,
                                Tensor& blocks, std::int64_t num_blocks) const {
  Tensor importance = Tensor::empty({in.q.tokens, select_groups_, num_blocks}, accumulation_dtype(in.q.dtype), stream.device());
  for (const AttentionSpan& span : spans) {
    kernels::NsaImportance args;
    set_selection(args, span, in, lse);
    args.importance = importance.view().rows(span.query, span.query + span.queries);
    run(stream, args);
  }
  selection_sum_->sum(stream, importance);
  for (const AttentionSpan& span : spans) {
    const std::int64_t end = span.query + span.queries;
    run(stream, kernels::NsaTopBlocks{.batch = span.batch,
                                      .importance = importance.view().rows(span.query, end),
                                      .query_start = span.query_start,
                                      .select_block = options_.select_block,
                                      .blocks = blocks.view().rows(span.query, end)});
  }
}

void NsaBranches::selected(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView blocks,
                           kernels::Heads o, View lse) const {
  for (const AttentionSpan& span : spans) {
    const std::int64_t end = span.query + span.queries;
    kernels::NsaSelectedForward args;
    set_inputs(args, span, in);
    args.blocks = blocks.rows(span.query, end);
    args.select_block = options_.select_block;
    args.scale = scale_;
    args.o = rows_of(o, span.query, span.queries);
    args.lse = lse.rows(span.query, end);
    run(stream, args);
  }
}

void NsaBranches::window(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, kernels::Heads o,
                         View lse) const {
  attend(stream, spans, window_mask(), scale_, in, o, lse);
}

void NsaBranches::compressed_backward(Stream& stream, const AttentionSpans& spans, const AttentionInput& in,
                                      const AttentionGradient& gradient) const {
  attend_backward(stream, spans, block_mask(), scale_, in, gradient);
}

void NsaBranches::window_backward(Stream& stream, const AttentionSpans& spans, const AttentionInput& in,
                                  const AttentionGradient& gradient) const {
  attend_backward(stream, spans, window_mask(), scale_, in, gradient);
}

void NsaBranches::selected_backward(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView blocks,
                                    const AttentionGradient& gradient) const {
  for (const AttentionSpan& span : spans) {
    kernels::NsaSelectedBackward args;
    set_inputs(args, span, in);
    set_gradients(args, span, gradient);
    args.blocks = blocks.rows(span.query, span.query + span.queries);
    args.select_block = options_.select_block;
    args.scale = scale_;
    run(stream, args);
  }
}

}  // namespace hadal::nn
