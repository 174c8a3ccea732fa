#include "nn/moe/balance.h"

#include <algorithm>

#include "core/copy.h"
#include "kernels/bias_update.h"

namespace hadal::nn {
namespace {

/// Padding ends the sequences and segments ascend: what counts is the first rows of each.
kernels::SequenceRows sequence_rows(const Context& ctx) {
  const std::int64_t tokens = ctx.whole_seq() - ctx.num_padding;
  std::int64_t valid = tokens;
  if (ctx.sequence != nullptr) {
    valid = 0;
    for (const Segment& segment : ctx.sequence->segments()) {
      valid += std::clamp<std::int64_t>(tokens - segment.position, 0, segment.length);
    }
  }
  return {.batch = ctx.batch, .seq = ctx.seq, .valid_seq = valid, .row_begin = ctx.token_begin};
}

}  // namespace

Balance::Balance(std::int64_t num_experts, const kernels::RouterOptions& router, const BalanceWeights& weights,
                 std::shared_ptr<SequenceCounts> sequence_counts, Device device)
    : num_experts_(num_experts),
      router_(router),
      weights_(weights),
      sequence_counts_(std::move(sequence_counts)),
      own_counts_(Tensor::zeros({num_experts}, DType::kI64, device)),
      own_loss_(Tensor::zeros({1}, DType::kF64, device)),
      counts_(own_counts_),
      loss_(own_loss_) {}

Tensor Balance::add(Context& ctx, ConstView scores, ConstView experts) {
  const kernels::SequenceRows rows = sequence_rows(ctx);
  const std::int64_t raw_width = weights_.sequence_alpha != 0 ? num_experts_ : 0;
  const std::int64_t sent_width = weights_.by_device() ? weights_.num_devices : 0;
  // One block, so that the ranks of a sequence sum it in one call.
  Tensor counts = Tensor::empty({ctx.batch * (num_experts_ + raw_width + sent_width)}, DType::kI64, scores.device);
  const std::int64_t raw_begin = ctx.batch * num_experts_, sent_begin = raw_begin + ctx.batch * raw_width;
  const View chosen = counts.view().rows(0, raw_begin).reshape({ctx.batch, num_experts_});
  const View raw = counts.view().rows(raw_begin, sent_begin).reshape({ctx.batch, raw_width});
  const View sent = counts.view().rows(sent_begin, counts.numel()).reshape({ctx.batch, sent_width});
  run(ctx.stream, kernels::BalanceCounts{.options = router_,
                                         .rows = rows,
                                         .scores = scores,
                                         .experts = experts,
                                         .counts = counts_,
                                         .chosen = chosen,
                                         .raw_top_k = raw,
                                         .sent = sent});
  if (!weights_.any()) return {};
  if (sequence_counts_) sequence_counts_->sum(ctx.stream, counts);
  Tensor d_scores = Tensor::empty(scores.shape, scores.dtype, scores.device);
  run(ctx.stream, kernels::BalanceLoss{.options = router_,
                                       .rows = rows,
                                       .tokens = ctx.whole_seq() - ctx.num_padding,
                                       .sequence_alpha = weights_.sequence_alpha,
                                       .expert_alpha = weights_.expert_alpha,
                                       .device_alpha = weights_.device_alpha,
                                       .communication_alpha = weights_.communication_alpha,
                                       .scale = ctx.sequence_scale,
                                       .scores = scores,
                                       .chosen = chosen,
                                       .raw_top_k = raw,
                                       .sent = sent,
                                       .loss = loss_,
                                       .d_scores = d_scores});
  return d_scores;
}

void Balance::reset() {
  Stream stream = stream_of(counts_.device);
  fill_zero(stream, counts_);
  fill_zero(stream, loss_);
}

void Balance::bind(View counts, View loss) {
  HADAL_CHECK(counts.shape == counts_.shape && loss.shape == loss_.shape && counts.device == counts_.device, "statistics of {} experts in {}",
              num_experts_, counts.shape.str());
  counts_ = counts;
  loss_ = loss;
  own_counts_.reset();
  own_loss_.reset();
}

void Balance::update_bias(Stream& stream, View bias, double speed, ConstView grad_norm_squared) const {
  run(stream, kernels::BiasUpdate{.counts = counts_, .bias = bias, .grad_norm_squared = grad_norm_squared, .speed = speed});
}

double Balance::max_violation() const {
  Stream stream = stream_of(counts_.device);
  const Tensor host = to_host(stream, counts_);
  const auto counts = host.span<std::int64_t>();
  std::int64_t total = 0;
  for (const std::int64_t count : counts) total += count;
  if (total == 0) return 0;
  const double mean = static_cast<double>(total) / static_cast<double>(counts.size());
  return static_cast<double>(*std::max_element(counts.begin(), counts.end())) / mean - 1.0;
}

}  // namespace hadal::nn
