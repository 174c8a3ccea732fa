#include "model/model.h"

#include "core/copy.h"
#include "kernels/dispatch.h"

namespace hadal::model {
namespace {

/// Whether position i has a weight in the loss.
bool counts(const Prediction& prediction, std::int64_t i) {
  bool result = false;
  kernels::visit_float(prediction.weights.dtype(), [&]<class T>() { result = prediction.weights.as<T>()[i] != T{0}; });
  return result;
}

}  // namespace

Model::Model(const ModelOptions& options)
    : options_(options), tables_(options, {}), stage_(options, whole_model(options.shape), {}, tables_) {}

std::vector<nn::MoeLayer*> Model::moe_layers() {
  std::vector<nn::MoeLayer*> layers;
  for (const Stage::PlacedMoe& moe : stage_.moe_layers()) layers.push_back(moe.layer);
  return layers;
}

void Model::initialize(std::uint64_t seed) {
  for (nn::Parameter* parameter : parameters()) parameter->initialize(seed);
}

Losses Model::forward_backward(Stream& stream, const MicroBatch& m) {
  Stage::RecordPtr record;
  LossTable losses(1, options_.shape.mtp.depth, options_.device);
  Stage::Outcome outcome;
  outcome.losses = losses.row(0);
  stage_.forward(stream, m, {}, true, &record, outcome);
  stage_.backward_input(stream, *record, {}, true);
  return losses.read(stream).front();
}

Agreement agreement(const MicroBatch& m, ConstView choice, ConstView draft) {
  // The draft made at i stands for token i + 2; the main model chooses that token at i + 1.
  Agreement result;
  for (std::int64_t b = 0; b < m.batch; ++b) {
    for (std::int64_t i = b * m.seq; i + 1 < (b + 1) * m.seq; ++i) {
      if (!counts(m.mtp[0], i)) continue;
      ++result.drafts;
      result.accepted += draft.as<std::int32_t>()[i] == choice.as<std::int32_t>()[i + 1];
    }
  }
  return result;
}

Tensor Model::run_blocks(nn::Context& ctx, ConstView tokens) {
  Tensor h = stage_.embedding().forward(ctx.stream, tokens);
  for (auto& block : stage_.blocks()) h = block->forward(ctx, std::move(h));
  return stage_.final_norm().forward(ctx, h, nullptr);
}

Model::Logits Model::logits(Stream& stream, ConstView tokens) {
  const std::int64_t batch = tokens.shape[0], seq = tokens.shape[1];
  nn::Context ctx{.stream = stream, .batch = batch, .seq = seq};
  const Tensor normed = run_blocks(ctx, to_device(stream, tokens.reshape({batch * seq}), options_.device));
  Logits result;
  result.main = head(stream, normed);
  Tensor previous;
  for (std::size_t k = 0; k < stage_.mtp().size(); ++k) {
    const auto shift = static_cast<std::int64_t>(k) + 1;
    nn::Context inner = Stage::mtp_context(ctx, static_cast<std::int64_t>(k));
    Tensor shifted = Tensor::empty({batch * seq}, DType::kI32);
    for (std::int64_t i = 0; i < batch * seq; ++i) {
      shifted.as<std::int32_t>()[i] = i % seq + shift < seq ? tokens.as<std::int32_t>()[i + shift] : -1;
    }
    const Tensor embedding = stage_.embedding().forward(stream, to_device(stream, shifted, options_.device));
    Tensor out = stage_.mtp()[k]->forward(inner, embedding, k == 0 ? normed.view() : static_cast<const Tensor&>(previous).view());
    result.mtp.push_back(head(stream, out));
    previous = std::move(out);
  }
  return result;
}

std::vector<std::unique_ptr<nn::AttentionCache>> Model::make_caches(std::int64_t max_tokens) {
  std::vector<std::unique_ptr<nn::AttentionCache>> caches;
  for (auto& block : stage_.blocks()) caches.push_back(block->attention().make_cache(max_tokens));
  return caches;
}

std::unique_ptr<nn::AttentionCache> Model::make_mtp_cache(std::int64_t max_tokens) {
  HADAL_CHECK(!stage_.mtp().empty(), "the model has no MTP module");
  return stage_.mtp()[0]->block().attention().make_cache(max_tokens);
}

Tensor Model::decode(Stream& stream, ConstView tokens, std::vector<std::unique_ptr<nn::AttentionCache>>& caches) {
  nn::Context ctx{.stream = stream, .batch = 1, .seq = tokens.numel()};
  Tensor h = stage_.embedding().forward(stream, to_device(stream, tokens, options_.device));
  for (std::size_t i = 0; i < stage_.blocks().size(); ++i) h = stage_.blocks()[i]->decode(ctx, h, *caches[i]);
  return stage_.final_norm().forward(ctx, h, nullptr);
}

Tensor Model::decode_mtp(Stream& stream, ConstView next_tokens, ConstView hidden, nn::AttentionCache& cache) {
  HADAL_CHECK(!stage_.mtp().empty(), "the model has no MTP module");
  nn::Context ctx{.stream = stream, .batch = 1, .seq = next_tokens.numel()};
  const Tensor embedding = stage_.embedding().forward(stream, to_device(stream, next_tokens, options_.device));
  return stage_.mtp()[0]->decode(ctx, embedding, hidden, cache);
}

Tensor Model::head(Stream& stream, ConstView hidden) { return stage_.head().logits(stream, hidden); }

}  // namespace hadal::model
