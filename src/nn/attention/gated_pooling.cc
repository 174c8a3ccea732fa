#include "nn/attention/gated_pooling.h"

#include <utility>

#include "kernels/nsa.h"

namespace hadal::nn {

GatedPooling::GatedPooling(const NsaOptions& o, std::string weight_name, std::string position_name, std::int64_t out,
                           std::int64_t in, DType dtype)
    : block_length_(o.block_length),
      block_stride_(o.block_stride),
      weight_(Parameter(std::move(weight_name), {out, in}, dtype, {.init = Init::zeros()})),
      // A table of offsets inside the block, not a matrix: it does not decay.
      position_(std::move(position_name), {o.block_length, out}, dtype, {.init = Init::zeros(), .decays = false}) {}

void GatedPooling::collect(ParameterList& parameters) {
  weight_.collect(parameters);
  parameters.push_back(&position_);
}

void GatedPooling::forward(Stream& stream, std::int64_t batch, ConstView u, kernels::ConstHeads x, kernels::Heads y,
                           State& s) const {
  s.logits = weight_.apply(stream, u);
  run(stream, kernels::NsaCompressForward{.batch = batch,
                                          .block_length = block_length_,
                                          .block_stride = block_stride_,
                                          .x = x,
                                          .logits = logit_heads(s.logits, x),
                                          .position = position_.value(),
                                          .y = y});
}

void GatedPooling::backward_input(Stream& stream, std::int64_t batch, kernels::ConstHeads x, kernels::ConstHeads d_y,
                                  kernels::Heads d_x, View d_u, State& s) {
  s.d_logits = Tensor::empty(s.logits.shape(), x.dtype);
  kernels::Heads d_logits = d_x;
  d_logits.data = s.d_logits.view().data;
  d_logits.token_stride = x.heads * x.width;
  d_logits.head_stride = x.width;
  run(stream, kernels::NsaCompressBackward{.batch = batch,
                                           .block_length = block_length_,
                                           .block_stride = block_stride_,
                                           .x = x,
                                           .logits = logit_heads(s.logits, x),
                                           .position = position_.value(),
                                           .d_y = d_y,
                                           .d_x = d_x,
                                           .d_logits = d_logits,
                                           .d_position = position_.grad()});
  s.logits.reset();
  weight_.apply_transposed(stream, s.d_logits, d_u, 1);
}

void GatedPooling::backward_weight(Stream& stream, ConstView u, State& s) { weight_.accumulate(stream, s.d_logits, u); }

}  // namespace hadal::nn
