#include "model/model.h"

#include "comm/position.h"
#include "kernels/dispatch.h"
#include "kernels/linear.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/rows.h"
#include "nn/attention/make_attention.h"

namespace hadal::model {
namespace {

/// Loss of one set of predictions from rows h; with `scale` != 0 also d_h, and the head's gradient accumulates.
double predict(Stream& stream, ConstView h, nn::Parameter& head, const Prediction& prediction, double scale, View d_h, Tensor& token_loss,
               View choice) {
  Tensor loss = Tensor::zeros({1}, DType::kF64);
  token_loss = Tensor::empty({h.shape[0]}, h.dtype, h.device);
  run(stream, kernels::LinearCrossEntropy{.h = h,
                                          .w = static_cast<const nn::Parameter&>(head).value(),
                                          .targets = prediction.targets,
                                          .loss_weight = prediction.weights,
                                          .loss = loss,
                                          .token_loss = token_loss,
                                          .prediction = choice,
                                          .scale = scale,
                                          .d_h = d_h,
                                          .d_w = d_h.empty() ? View{} : head.grad()});
  return *loss.as<double>();
}

/// Whether position i has a weight in the loss.
bool counts(const Prediction& prediction, std::int64_t i) {
  bool result = false;
  kernels::visit_float(prediction.weights.dtype(), [&]<class T>() { result = prediction.weights.as<T>()[i] != T{0}; });
  return result;
}

}  // namespace

/// Records of the blocks and the final norm of one micro-batch.
struct Model::Trunk {
  std::vector<Tensor> inputs;          // [T, d] of each block, and the final norm's
  std::vector<nn::SavedPtr> blocks;
  nn::RmsNormSaved final_norm;
};

Model::Model(const ModelOptions& options)
    : options_(options),
      rope_(nn::make_rope_table(attention_options(options, 0))),
      embedding_("model.embed_tokens.weight", {options.shape.vocab_size, options.shape.hidden_size}, options.dtype,
                 {.init = nn::Init::normal(options.shape.init_std)}),
      final_norm_("model.norm", options.shape.hidden_size, options.shape.rms_norm_eps, options.dtype),
      head_("lm_head.weight", {options.shape.vocab_size, options.shape.hidden_size}, options.dtype,
            {.init = nn::Init::normal(options.shape.init_std)}) {
  for (std::int64_t i = 0; i < options.shape.num_layers; ++i) blocks_.push_back(std::make_unique<Block>(options, i, rope_));
  for (std::int64_t k = 0; k < options.shape.mtp.depth; ++k) {
    mtp_.push_back(std::make_unique<MtpModule>(options, options.shape.num_layers + k, rope_));
  }
}

nn::ParameterList Model::parameters() {
  nn::ParameterList list{&embedding_};
  for (auto& block : blocks_) block->collect(list);
  final_norm_.collect(list);
  list.push_back(&head_);
  for (auto& module : mtp_) module->collect(list);
  return list;
}

std::vector<nn::MoeLayer*> Model::moe_layers() {
  std::vector<nn::MoeLayer*> layers;
  for (auto& block : blocks_) {
    if (block->moe() != nullptr) layers.push_back(block->moe());
  }
  for (auto& module : mtp_) {
    if (module->block().moe() != nullptr) layers.push_back(module->block().moe());
  }
  return layers;
}

void Model::initialize(std::uint64_t seed) {
  for (nn::Parameter* parameter : parameters()) parameter->initialize(seed);
}

void Model::hold_selection(bool hold) {
  for (auto& block : blocks_) block->attention().hold_selection(hold);
  for (auto& module : mtp_) module->block().attention().hold_selection(hold);
}

Tensor Model::embed(Stream& stream, ConstView tokens) {
  Tensor h = Tensor::empty({tokens.numel(), options_.shape.hidden_size}, options_.dtype, tokens.device);
  run(stream, kernels::GatherRows{.x = embedding_.value(), .index = tokens, .y = h});
  return h;
}

Tensor Model::run_blocks(nn::Context& ctx, Tensor h, Trunk* trunk) {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const comm::Position position("forward", comm::Position::kInherit, static_cast<int>(i));
    auto& block = blocks_[i];
    nn::SavedPtr saved;
    Tensor next = block->forward(ctx, h, trunk == nullptr ? nullptr : &saved);
    if (trunk != nullptr) {
      trunk->inputs.push_back(std::move(h));
      trunk->blocks.push_back(std::move(saved));
    }
    h = std::move(next);
  }
  Tensor normed = final_norm_.forward(ctx, h, trunk == nullptr ? nullptr : &trunk->final_norm);
  if (trunk != nullptr) trunk->inputs.push_back(std::move(h));
  return normed;
}

nn::Context Model::mtp_context(const nn::Context& ctx, std::size_t module) const {
  nn::Context inner = ctx;
  inner.num_padding = static_cast<std::int64_t>(module) + 1;
  return inner;
}

Losses Model::forward_backward(Stream& stream, const MicroBatch& m) {
  HADAL_CHECK_EQ(m.mtp.size(), mtp_.size());
  nn::Context ctx{.stream = stream, .batch = m.batch, .seq = m.seq, .sequence_scale = m.sequence_scale};
  Trunk trunk;
  const Tensor normed = run_blocks(ctx, embed(stream, m.tokens), &trunk);
  Losses losses;
  Tensor token_loss;
  Tensor d_normed = Tensor::empty(normed.shape(), normed.dtype(), normed.device());
  losses.main = predict(stream, normed, head_, m.main, 1.0, d_normed, token_loss, {});

  // MTP modules form a chain: h^0 = normed, h^k = module k's output. All forwards first, then their backwards from the last.
  const double scale = mtp_.empty() ? 0.0 : m.mtp_weight / static_cast<double>(mtp_.size());
  std::vector<MtpModule::Record> records(mtp_.size());
  std::vector<Tensor> embeddings, outputs, d_outputs;
  for (std::size_t k = 0; k < mtp_.size(); ++k) {
    nn::Context inner = mtp_context(ctx, k);
    embeddings.push_back(embed(stream, m.mtp[k].inputs));
    outputs.push_back(mtp_[k]->forward(inner, embeddings[k], k == 0 ? normed.view() : static_cast<const Tensor&>(outputs[k - 1]).view(), &records[k]));
    d_outputs.push_back(Tensor::empty(normed.shape(), normed.dtype(), normed.device()));
    losses.mtp.push_back(predict(stream, outputs[k], head_, m.mtp[k], scale, d_outputs[k], token_loss, {}));
  }
  for (std::size_t k = mtp_.size(); k-- > 0;) {
    nn::Context inner = mtp_context(ctx, k);
    MtpModule::InputGradients gradients = mtp_[k]->backward_input(inner, d_outputs[k], records[k]);
    mtp_[k]->backward_weight(inner, records[k]);
    Tensor& d_previous = k == 0 ? d_normed : d_outputs[k - 1];
    run(stream, kernels::Add{.a = d_previous, .b = gradients.d_hidden, .y = d_previous});
    run(stream, kernels::ScatterAddRows{.d_y = gradients.d_embedding, .index = m.mtp[k].inputs, .d_x = embedding_.grad()});
    records[k] = {};
  }

  Tensor d_h = final_norm_.backward(ctx, d_normed, {}, trunk.final_norm);
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const comm::Position position("backward", comm::Position::kInherit, static_cast<int>(i));
    Tensor d_in = blocks_[i]->backward_input(ctx, d_h, *trunk.blocks[i]);
    blocks_[i]->backward_weight(ctx, *trunk.blocks[i]);
    trunk.blocks[i].reset();
    d_h = std::move(d_in);
  }
  run(stream, kernels::ScatterAddRows{.d_y = d_h, .index = m.tokens, .d_x = embedding_.grad()});
  return losses;
}

Model::Evaluation Model::evaluate(Stream& stream, const MicroBatch& m) {
  nn::Context ctx{.stream = stream, .batch = m.batch, .seq = m.seq, .sequence_scale = m.sequence_scale};
  Evaluation result;
  const Tensor normed = run_blocks(ctx, embed(stream, m.tokens), nullptr);
  const std::int64_t tokens = m.batch * m.seq;
  Tensor choice = Tensor::empty({tokens}, DType::kI32);
  result.losses.main = predict(stream, normed, head_, m.main, 0.0, {}, result.token_loss, choice);
  Tensor previous;
  for (std::size_t k = 0; k < mtp_.size(); ++k) {
    nn::Context inner = mtp_context(ctx, k);
    const Tensor embedding = embed(stream, m.mtp[k].inputs);
    Tensor out = mtp_[k]->forward(inner, embedding, k == 0 ? normed.view() : static_cast<const Tensor&>(previous).view(), nullptr);
    Tensor draft = Tensor::empty({tokens}, DType::kI32);
    Tensor token_loss;
    result.losses.mtp.push_back(predict(stream, out, head_, m.mtp[k], 0.0, {}, token_loss, draft));
    if (k == 0) {
      // The draft made at i stands for token i + 2; the main model chooses that token at i + 1.
      for (std::int64_t b = 0; b < m.batch; ++b) {
        for (std::int64_t i = b * m.seq; i + 1 < (b + 1) * m.seq; ++i) {
          if (!counts(m.mtp[0], i)) continue;
          ++result.drafts;
          result.accepted += draft.as<std::int32_t>()[i] == choice.as<std::int32_t>()[i + 1];
        }
      }
    }
    previous = std::move(out);
  }
  return result;
}

Model::Logits Model::logits(Stream& stream, ConstView tokens) {
  const std::int64_t batch = tokens.shape[0], seq = tokens.shape[1];
  nn::Context ctx{.stream = stream, .batch = batch, .seq = seq};
  const Tensor normed = run_blocks(ctx, embed(stream, tokens.reshape({batch * seq})), nullptr);
  Logits result;
  result.main = head(stream, normed);
  Tensor previous;
  for (std::size_t k = 0; k < mtp_.size(); ++k) {
    nn::Context inner = mtp_context(ctx, k);
    const auto shift = static_cast<std::int64_t>(k) + 1;
    Tensor shifted = Tensor::empty({batch * seq}, DType::kI32);
    for (std::int64_t i = 0; i < batch * seq; ++i) {
      shifted.as<std::int32_t>()[i] = i % seq + shift < seq ? tokens.as<std::int32_t>()[i + shift] : -1;
    }
    const Tensor embedding = embed(stream, shifted);
    Tensor out = mtp_[k]->forward(inner, embedding, k == 0 ? normed.view() : static_cast<const Tensor&>(previous).view(), nullptr);
    result.mtp.push_back(head(stream, out));
    previous = std::move(out);
  }
  return result;
}

std::vector<std::unique_ptr<nn::AttentionCache>> Model::make_caches(std::int64_t max_tokens) {
  std::vector<std::unique_ptr<nn::AttentionCache>> caches;
  for (auto& block : blocks_) caches.push_back(block->attention().make_cache(max_tokens));
  return caches;
}

std::unique_ptr<nn::AttentionCache> Model::make_mtp_cache(std::int64_t max_tokens) {
  HADAL_CHECK(!mtp_.empty(), "the model has no MTP module");
  return mtp_[0]->block().attention().make_cache(max_tokens);
}

Tensor Model::decode(Stream& stream, ConstView tokens, std::vector<std::unique_ptr<nn::AttentionCache>>& caches) {
  nn::Context ctx{.stream = stream, .batch = 1, .seq = tokens.numel()};
  Tensor h = embed(stream, tokens);
  for (std::size_t i = 0; i < blocks_.size(); ++i) h = blocks_[i]->decode(ctx, h, *caches[i]);
  return final_norm_.forward(ctx, h, nullptr);
}

Tensor Model::decode_mtp(Stream& stream, ConstView next_tokens, ConstView hidden, nn::AttentionCache& cache) {
  HADAL_CHECK(!mtp_.empty(), "the model has no MTP module");
  nn::Context ctx{.stream = stream, .batch = 1, .seq = next_tokens.numel()};
  const Tensor embedding = embed(stream, next_tokens);
  return mtp_[0]->decode(ctx, embedding, hidden, cache);
}

Tensor Model::head(Stream& stream, ConstView hidden) {
  Tensor logits = Tensor::empty({hidden.shape[0], options_.shape.vocab_size}, hidden.dtype, hidden.device);
  kernels::linear_forward(stream, hidden, static_cast<const nn::Parameter&>(head_).value(), logits);
  return logits;
}

}  // namespace hadal::model
