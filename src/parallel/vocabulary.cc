#include "parallel/vocabulary.h"

#include <algorithm>
#include <utility>

#include "core/copy.h"
#include "kernels/linear.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/local_rows.h"
#include "kernels/loss_sum.h"
#include "kernels/rows.h"
#include "kernels/vocab_cross_entropy.h"

namespace hadal::parallel {
namespace {

/// Rows of logits held at once.
constexpr std::int64_t kChunkRows = 512;

nn::Shard shard_of(const comm::Communicator* tp) { return tp == nullptr ? nn::Shard{} : nn::Shard{tp->rank(), tp->size()}; }

nn::Parameter make_weight(std::string name, std::int64_t vocab_size, std::int64_t hidden_size, double init_std, Storage storage, nn::Shard shard) {
  const VocabularyRange range = vocabulary_range(vocab_size, shard);
  const std::int64_t rows = range.end - range.begin;
  nn::LogicalPart part = nn::sliced_part(name, {vocab_size, hidden_size}, 0, range.begin, rows, 0);
  return {std::move(name),
          {rows, hidden_size},
          storage,
          {.init = nn::Init::normal(init_std), .replication = shard.whole() ? nn::Replication::kDense : nn::Replication::kTensor},
          {std::move(part)}};
}

}  // namespace

VocabularyRange vocabulary_range(std::int64_t vocab_size, nn::Shard shard) {
  HADAL_CHECK(vocab_size >= shard.count, "{} ids over {} ranks", vocab_size, shard.count);
  return {vocab_size * shard.index / shard.count, vocab_size * (shard.index + 1) / shard.count};
}

Embedding::Embedding(std::string name, std::int64_t vocab_size, std::int64_t hidden_size, double init_std, Storage storage, comm::Communicator* tp)
    : range_(vocabulary_range(vocab_size, shard_of(tp))),
      boundary_(tp),
      weight_(make_weight(std::move(name), vocab_size, hidden_size, init_std, storage, shard_of(tp))) {}

Tensor Embedding::local_rows(Stream& stream, ConstView tokens) const {
  Tensor rows = Tensor::empty(tokens.shape, DType::kI32, tokens.device);
  run(stream, kernels::LocalRows{.ids = tokens, .rows = rows, .begin = range_.begin, .end = range_.end});
  return rows;
}

Tensor Embedding::forward(Stream& stream, ConstView tokens) const {
  Tensor h = Tensor::empty({tokens.numel(), weight_.shape()[1]}, weight_.dtype(), tokens.device);
  if (boundary_.trivial()) {
    run(stream, kernels::GatherRows{.x = weight_.value(), .index = tokens, .y = h});
    return h;
  }
  const Tensor rows = local_rows(stream, tokens);
  run(stream, kernels::GatherRows{.x = weight_.value(), .index = rows, .y = h});
  return boundary_.reduce_scatter(std::move(h));
}

void Embedding::backward(Stream& stream, ConstView tokens, ConstView d_h) {
  if (boundary_.trivial()) {
    run(stream, kernels::ScatterAddRows{.d_y = d_h, .index = tokens, .d_x = weight_.grad()});
    return;
  }
  const Tensor whole = boundary_.gather(d_h);
  const Tensor rows = local_rows(stream, tokens);
  run(stream, kernels::ScatterAddRows{.d_y = whole, .index = rows, .d_x = weight_.grad()});
}

Head::Head(std::string name, std::int64_t vocab_size, std::int64_t hidden_size, double init_std, Storage storage, comm::Communicator* tp)
    : tp_(tp),
      range_(vocabulary_range(vocab_size, shard_of(tp))),
      boundary_(tp),
      weight_(make_weight(std::move(name), vocab_size, hidden_size, init_std, storage, shard_of(tp))) {}

Head::Result Head::loss(Stream& stream, ConstView h, const Prediction& prediction, double scale, View sum, View d_h, bool predict) {
  if (!boundary_.trivial()) return loss_of_share(stream, h, prediction, scale, sum, d_h, predict);
  Result result;
  result.token_loss = Tensor::empty({h.shape[0]}, accumulation_dtype(h.dtype), h.device);
  if (predict) result.prediction = Tensor::empty({h.shape[0]}, DType::kI32, h.device);
  const nn::GradientTarget d_w = d_h.empty() ? nn::GradientTarget{} : weight_.grad_target();
  run(stream, kernels::LinearCrossEntropy{.h = h,
                                          .w = std::as_const(weight_).value(),
                                          .targets = prediction.targets,
                                          .loss_weight = prediction.weights,
                                          .loss = sum,
                                          .token_loss = result.token_loss,
                                          .prediction = predict ? result.prediction.view() : View{},
                                          .scale = scale,
                                          .d_h = d_h,
                                          .d_w = d_w.sum,
                                          .add_to_d_w = d_w.add});
  return result;
}

Head::Result Head::loss_of_share(Stream& stream, ConstView h_shard, const Prediction& p, double scale, View sum, View d_h_shard, bool predict) {
  const bool gradient = !d_h_shard.empty();
  const Tensor h = boundary_.gather(h_shard);
  const std::int64_t tokens = h.shape()[0], columns = weight_.shape()[0];
  const Storage storage(h.dtype(), h.device()), sums = storage.accumulation();
  Result result;
  result.token_loss = Tensor::empty({tokens}, sums);
  if (predict) result.prediction = Tensor::empty({tokens}, DType::kI32, h.device());
  Tensor d_h = gradient ? Tensor::empty(h.shape(), storage) : Tensor();
  const ConstView w = std::as_const(weight_).value();
  for (std::int64_t begin = 0; begin < tokens; begin += kChunkRows) {
    const std::int64_t end = std::min(begin + kChunkRows, tokens), rows = end - begin;
    const ConstView targets = p.targets.view().rows(begin, end), weights = p.weights.view().rows(begin, end);
    Tensor logits = Tensor::empty({rows, columns}, storage);
    Tensor mine = Tensor::empty({rows, kernels::kNumVocabStatistics}, sums);
    Tensor all = Tensor::empty({tp_->size(), rows, kernels::kNumVocabStatistics}, sums);
    Tensor factor = Tensor::empty({rows}, sums);
    kernels::linear_forward(stream, h.view().rows(begin, end), w, logits);
    run(stream, kernels::VocabSoftmaxTerms{.logits = logits, .targets = targets, .first_column = range_.begin, .statistics = mine});
    tp_->all_gather(mine, all);
    run(stream, kernels::VocabCrossEntropy{.statistics = all,
                                           .rank = tp_->rank(),
                                           .targets = targets,
                                           .loss_weight = weights,
                                           .scale = scale,
                                           .token_loss = result.token_loss.view().rows(begin, end),
                                           .factor = factor,
                                           .prediction = predict ? result.prediction.view().rows(begin, end) : View{}});
    if (!gradient) continue;
    run(stream, kernels::VocabSoftmaxGradient{.terms = logits,
                                              .factor = factor,
                                              .targets = targets,
                                              .loss_weight = weights,
                                              .scale = scale,
                                              .first_column = range_.begin});
    kernels::linear_backward_input(stream, logits, w, d_h.view().rows(begin, end));
    const nn::GradientTarget d_w = weight_.grad_target();
    kernels::linear_backward_weight(stream, logits, h.view().rows(begin, end), d_w.sum, d_w.beta());
  }
  if (gradient) {
    const Tensor shard = boundary_.reduce_scatter(std::move(d_h));
    copy(stream, shard, d_h_shard);
  }
  if (tp_->is_root()) run(stream, kernels::LossSum{.token_loss = result.token_loss, .loss_weight = p.weights, .loss = sum});
  return result;
}

Tensor Head::logits(Stream& stream, ConstView h) const {
  HADAL_CHECK(boundary_.trivial(), "logits of a share of the vocabulary");
  Tensor logits = Tensor::empty({h.shape[0], weight_.shape()[0]}, accumulation_dtype(h.dtype), h.device);
  kernels::linear_forward(stream, h, weight_.value(), logits);
  return logits;
}

}  // namespace hadal::parallel
