#include "nn/attention/nsa_branches.h"

#include <algorithm>

#include "kernels/nsa.h"

namespace hadal::nn {

using kernels::AttentionMask;
using kernels::FlashAttentionBackward;
using kernels::FlashAttentionForward;
using kernels::Heads;

AttentionMask NsaBranches::block_mask() const {
  return {.kind = AttentionMask::Kind::kBlocks, .block_length = options_.block_length, .block_stride = options_.block_stride};
}

AttentionMask NsaBranches::window_mask() const { return {.kind = AttentionMask::Kind::kCausal, .window = options_.window}; }

std::int64_t NsaBranches::num_compressed(std::int64_t tokens) const {
  return kernels::num_compressed(tokens, options_.block_length, options_.block_stride);
}

void NsaBranches::compressed(Stream& stream, std::int64_t batch, const BranchInput& in, std::int64_t query_start, Heads o,
                             View lse) const {
  run(stream, FlashAttentionForward{.batch = batch,
                                    .q = in.q,
                                    .k = in.k,
                                    .k_shared = in.k_shared,
                                    .v = in.v,
                                    .mask = block_mask(),
                                    .query_start = query_start,
                                    .scale = scale_,
                                    .o = o,
                                    .lse = lse});
}

Tensor NsaBranches::select(Stream& stream, std::int64_t batch, const BranchInput& in, ConstView lse,
                           std::int64_t query_start) const {
  const std::int64_t last_position = query_start + in.q.tokens / batch - 1;
  const std::int64_t count = std::min(options_.num_selected, last_position / options_.select_block + 1);
  Tensor blocks = Tensor::empty({in.q.tokens, select_groups_, count}, DType::kI32);
  const auto fill = [&](auto args) {
    args.batch = batch;
    args.q = in.q;
    args.k = in.k;
    args.k_shared = in.k_shared;
    args.lse = lse;
    args.scale = scale_;
    args.query_start = query_start;
    args.block_length = options_.block_length;
    args.block_stride = options_.block_stride;
    args.select_block = options_.select_block;
    args.num_groups = select_groups_;
    return args;
  };
  if (selection_sum_ == nullptr) {
    auto args = fill(kernels::NsaSelect{});
    args.blocks = blocks;
    run(stream, args);
    return blocks;
  }
  Tensor importance = Tensor::empty({in.q.tokens, select_groups_, last_position / options_.select_block + 1}, in.q.dtype);
  auto args = fill(kernels::NsaImportance{});
  args.importance = importance;
  run(stream, args);
  selection_sum_->sum(stream, importance);
  run(stream, kernels::NsaTopBlocks{.batch = batch,
                                    .importance = importance,
                                    .query_start = query_start,
                                    .select_block = options_.select_block,
                                    .blocks = blocks});
  return blocks;
}

void NsaBranches::selected(Stream& stream, std::int64_t batch, const BranchInput& in, ConstView blocks, std::int64_t query_start,
                           Heads o, View lse) const {
  run(stream, kernels::NsaSelectedForward{.batch = batch,
                                          .q = in.q,
                                          .k = in.k,
                                          .k_shared = in.k_shared,
                                          .v = in.v,
                                          .blocks = blocks,
                                          .select_block = options_.select_block,
                                          .query_start = query_start,
                                          .scale = scale_,
                                          .o = o,
                                          .lse = lse});
}

void NsaBranches::window(Stream& stream, std::int64_t batch, const BranchInput& in, std::int64_t query_start, Heads o,
                         View lse) const {
  run(stream, FlashAttentionForward{.batch = batch,
                                    .q = in.q,
                                    .k = in.k,
                                    .k_shared = in.k_shared,
                                    .v = in.v,
                                    .mask = window_mask(),
                                    .query_start = query_start,
                                    .scale = scale_,
                                    .o = o,
                                    .lse = lse});
}

namespace {

FlashAttentionBackward flash_backward(std::int64_t batch, const BranchInput& in, const AttentionMask& mask, double scale,
                                      const BranchGradient& g) {
  return {.batch = batch,
          .q = in.q,
          .k = in.k,
          .k_shared = in.k_shared,
          .v = in.v,
          .mask = mask,
          .scale = scale,
          .o = g.o,
          .lse = g.lse,
          .d_o = g.d_o,
          .d_q = g.d_q,
          .d_k = g.d_k,
          .d_k_shared = g.d_k_shared,
          .d_v = g.d_v};
}

}  // namespace

void NsaBranches::compressed_backward(Stream& stream, std::int64_t batch, const BranchInput& in,
                                      const BranchGradient& gradient) const {
  run(stream, flash_backward(batch, in, block_mask(), scale_, gradient));
}

void NsaBranches::window_backward(Stream& stream, std::int64_t batch, const BranchInput& in,
                                  const BranchGradient& gradient) const {
  run(stream, flash_backward(batch, in, window_mask(), scale_, gradient));
}

void NsaBranches::selected_backward(Stream& stream, std::int64_t batch, const BranchInput& in, ConstView blocks,
                                    const BranchGradient& g) const {
  run(stream, kernels::NsaSelectedBackward{.batch = batch,
                                           .q = in.q,
                                           .k = in.k,
                                           .k_shared = in.k_shared,
                                           .v = in.v,
                                           .blocks = blocks,
                                           .select_block = options_.select_block,
                                           .scale = scale_,
                                           .o = g.o,
                                           .lse = g.lse,
                                           .d_o = g.d_o,
                                           .d_q = g.d_q,
                                           .d_k = g.d_k,
                                           .d_k_shared = g.d_k_shared,
                                           .d_v = g.d_v});
}

}  // namespace hadal::nn
