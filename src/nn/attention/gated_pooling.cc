#include "nn/attention/gated_pooling.h"

#include <utility>

#include "kernels/nsa.h"

namespace hadal::nn {

GatedPooling::GatedPooling(const NsaOptions& o, std::string weight_name, std::string position_name, std::int64_t out,
                           std::int64_t in, Storage storage)
    : block_length_(o.block_length),
      block_stride_(o.block_stride),
      weight_(Parameter(std::move(weight_name), {out, in}, storage, {.init = Init::zeros()})),
      // A table of offsets inside the block, not a matrix: it does not decay.
      position_(std::move(position_name), {o.block_length, out}, storage.accumulation(), {.init = Init::zeros(), .decays = false}) {}

void GatedPooling::collect(ParameterList& parameters) {
  weight_.collect(parameters);
  parameters.push_back(&position_);
}

void GatedPooling::forward(Stream& stream, const PoolSpans& spans, ConstView u, kernels::ConstHeads x, kernels::Heads y,
                           State& s) const {
  s.logits.clear();
  for (const PoolSpan& span : spans) {
    const kernels::ConstHeads rows = rows_of(x, span.token, span.tokens);
    s.logits.push_back(weight_.apply(stream, u.rows(span.token * x.heads, (span.token + span.tokens) * x.heads)));
    run(stream, kernels::NsaCompressForward{.batch = span.batch,
                                            .block_length = block_length_,
                                            .block_stride = block_stride_,
                                            .x = rows,
                                            .logits = logit_heads(s.logits.back().view(), rows),
                                            .position = position_.value(),
                                            .y = rows_of(y, span.entry, span.entries)});
  }
}

void GatedPooling::backward_input(Stream& stream, const PoolSpans& spans, kernels::ConstHeads x, kernels::ConstHeads d_y,
                                  kernels::Heads d_x, bool add_to_x, View d_u, State& s) {
  s.d_logits.clear();
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const PoolSpan& span = spans[i];
    const kernels::ConstHeads rows = rows_of(x, span.token, span.tokens);
    s.d_logits.push_back(Tensor::empty(s.logits[i].shape(), x.dtype, stream.device()));
    run(stream, kernels::NsaCompressBackward{.batch = span.batch,
                                             .block_length = block_length_,
                                             .block_stride = block_stride_,
                                             .x = rows,
                                             .logits = logit_heads(s.logits[i].view(), rows),
                                             .position = position_.value(),
                                             .d_y = rows_of(d_y, span.entry, span.entries),
                                             .d_x = rows_of(d_x, span.token, span.tokens),
                                             .d_logits = logit_heads(s.d_logits[i].view(), rows),
                                             .d_position = position_.grad(),
                                             .add_to_x = add_to_x});
  }
  s.logits.clear();
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const std::int64_t first = spans[i].token * x.heads, end = first + spans[i].tokens * x.heads;
    weight_.apply_transposed(stream, s.d_logits[i], d_u.rows(first, end), 1);
  }
}

void GatedPooling::backward_weight(Stream& stream, const PoolSpans& spans, ConstView u, State& s) {
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const std::int64_t groups = s.d_logits[i].shape()[0] / spans[i].tokens, first = spans[i].token * groups;
    weight_.accumulate(stream, s.d_logits[i], u.rows(first, first + spans[i].tokens * groups));
  }
}

}  // namespace hadal::nn
