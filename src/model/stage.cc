#include "model/stage.h"

#include <utility>

#include "comm/position.h"
#include "kernels/rows.h"
#include "nn/attention/make_attention.h"

namespace hadal::model {
namespace {

constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
constexpr const char* kHeadName = "lm_head.weight";

}  // namespace

std::shared_ptr<parallel::Embedding> SharedTables::embedding() {
  const ModelSection& shape = model_.shape;
  if (!embedding_) {
    embedding_ = std::make_shared<parallel::Embedding>(kEmbeddingName, shape.vocab_size, shape.hidden_size, shape.init_std, model_.dtype, groups_.tp);
  }
  return embedding_;
}

std::shared_ptr<parallel::Head> SharedTables::head() {
  const ModelSection& shape = model_.shape;
  if (!head_) head_ = std::make_shared<parallel::Head>(kHeadName, shape.vocab_size, shape.hidden_size, shape.init_std, model_.dtype, groups_.tp);
  return head_;
}

int SharedTables::order_of(const nn::Parameter& parameter) const {
  if (embedding_ && &parameter == &embedding_->weight()) return 0;
  return head_ && &parameter == &head_->weight() ? 1 : 2;
}

/// The memory behind every gradient stays until backward_weight is done with it.
struct Stage::Record {
  const MicroBatch* m = nullptr;
  std::vector<Tensor> inputs;  // [T', d] of each block
  std::vector<nn::SavedPtr> blocks;
  std::vector<Tensor> d_outputs;  // of each block, where weight gradients are left for later
  Tensor head_in;                 // [T', d]: the final norm's input
  nn::RmsNormSaved final_norm;
  Tensor d_normed;                // of the head's output
  Tensor hidden;                  // [T', d]: h^{k-1} of the first MTP module here
  std::vector<MtpModule::Record> mtp;
  std::vector<Tensor> embeddings, outputs, d_mtp;
};

void Stage::RecordDeleter::operator()(Record* record) const { delete record; }

Stage::Stage(const ModelOptions& options, const StageContent& content, const parallel::LayerGroups& groups, SharedTables& tables)
    : options_(options), content_(content), groups_(groups), rope_(nn::make_rope_table(attention_options(options, 0))) {
  if (content.needs_embedding()) embedding_ = tables.embedding();
  for (std::int64_t i = 0; i < content.num_layers; ++i) {
    blocks_.push_back(std::make_unique<Block>(options, content.first_layer + i, rope_, groups));
  }
  if (content.head) final_norm_ = std::make_unique<nn::RmsNorm>("model.norm", options.shape.hidden_size, options.shape.rms_norm_eps, options.dtype);
  if (content.needs_head()) head_ = tables.head();
  for (std::int64_t k = 0; k < content.num_mtp; ++k) {
    mtp_.push_back(std::make_unique<MtpModule>(options, options.shape.num_layers + content.first_mtp + k, rope_, groups));
  }
}

Stage::~Stage() = default;

nn::Context Stage::context(Stream& stream, const MicroBatch& m) const {
  const nn::Shard tp = groups_.tensor();
  return {.stream = stream,
          .batch = m.batch,
          .seq = m.seq,
          .sequence_scale = m.sequence_scale,
          .sequence = groups_.context,
          .token_begin = tp.begin(m.batch * m.seq)};
}

nn::Context Stage::mtp_context(const nn::Context& ctx, std::int64_t k) {
  nn::Context inner = ctx;
  inner.num_padding = k + 1;
  return inner;
}

Tensor Stage::forward(Stream& stream, const MicroBatch& m, Tensor x, bool last, RecordPtr* record, Outcome& outcome) {
  HADAL_CHECK_EQ(static_cast<std::int64_t>(m.mtp.size()), options_.shape.mtp.depth);
  nn::Context ctx = context(stream, m);
  if (record != nullptr) record->reset(new Record);
  Record* r = record == nullptr ? nullptr : record->get();
  if (r != nullptr) r->m = &m;
  outcome.losses.mtp.assign(m.mtp.size(), 0.0);

  Tensor h = content_.embedding ? embedding_->forward(stream, m.tokens) : std::move(x);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const comm::Position position("forward", comm::Position::kInherit, static_cast<int>(content_.first_layer) + static_cast<int>(i));
    nn::SavedPtr saved;
    Tensor next = blocks_[i]->forward(ctx, h, r == nullptr ? nullptr : &saved);
    if (r != nullptr) {
      r->inputs.push_back(std::move(h));
      r->blocks.push_back(std::move(saved));
    }
    h = std::move(next);
  }
  if (content_.head) {
    Tensor normed = run_head(ctx, m, h, r, outcome);
    if (r != nullptr) r->head_in = std::move(h);
    h = std::move(normed);
  }
  for (std::int64_t i = 0; i < content_.num_mtp; ++i) {
    Tensor next = run_mtp(ctx, m, i, h, r, outcome);
    if (r != nullptr) (i == 0 ? r->hidden : r->outputs.emplace_back()) = std::move(h);
    h = std::move(next);
  }
  return last ? Tensor() : std::move(h);
}

Tensor Stage::run_head(nn::Context& ctx, const MicroBatch& m, ConstView h, Record* r, Outcome& outcome) {
  Tensor normed = final_norm_->forward(ctx, h, r == nullptr ? nullptr : &r->final_norm);
  if (r != nullptr) r->d_normed = Tensor::empty(normed.shape(), normed.dtype(), normed.device());
  parallel::Head::Result result = head_->loss(ctx.stream, normed, m.main, 1.0, r == nullptr ? View{} : r->d_normed.view(), r == nullptr);
  outcome.losses.main = result.loss;
  outcome.token_loss = std::move(result.token_loss);
  outcome.choice = std::move(result.prediction);
  return normed;
}

Tensor Stage::run_mtp(nn::Context& ctx, const MicroBatch& m, std::int64_t i, ConstView hidden, Record* r, Outcome& outcome) {
  const std::int64_t k = content_.first_mtp + i;
  const Prediction& prediction = m.mtp[static_cast<std::size_t>(k)];
  nn::Context inner = mtp_context(ctx, k);
  Tensor embedding = embedding_->forward(ctx.stream, prediction.inputs);
  MtpModule::Record* record = r == nullptr ? nullptr : &r->mtp.emplace_back();
  Tensor out = mtp_[static_cast<std::size_t>(i)]->forward(inner, embedding, hidden, record);
  View d_out{};
  if (r != nullptr) {
    r->embeddings.push_back(std::move(embedding));
    d_out = r->d_mtp.emplace_back(Tensor::empty(out.shape(), out.dtype(), out.device()));
  }
  const double scale = m.mtp_weight / static_cast<double>(m.mtp.size());
  parallel::Head::Result result = head_->loss(ctx.stream, out, prediction, scale, d_out, r == nullptr && k == 0);
  outcome.losses.mtp[static_cast<std::size_t>(k)] = result.loss;
  if (k == 0) outcome.draft = std::move(result.prediction);
  return out;
}

Tensor Stage::backward_input(Stream& stream, Record& r, Tensor d_y, bool weights) {
  nn::Context ctx = context(stream, *r.m);
  Tensor d_h = std::move(d_y);
  if (content_.num_mtp > 0) d_h = backward_mtp(ctx, r, std::move(d_h), weights);
  if (content_.head) {
    // d_h, where there is one, is the gradient of the normed rows from the MTP modules.
    if (d_h.defined()) run(stream, kernels::Add{.a = r.d_normed, .b = d_h, .y = r.d_normed});
    d_h = final_norm_->backward(ctx, r.d_normed, {}, r.final_norm);
    r.head_in.reset();
    r.d_normed.reset();
  }
  d_h = backward_blocks(ctx, r, std::move(d_h), weights);
  if (!content_.embedding) return d_h;
  embedding_->backward(stream, r.m->tokens, d_h);
  return {};
}

Tensor Stage::backward_mtp(nn::Context& ctx, Record& r, Tensor d_last, bool weights) {
  if (d_last.defined()) run(ctx.stream, kernels::Add{.a = r.d_mtp.back(), .b = d_last, .y = r.d_mtp.back()});
  for (std::size_t i = mtp_.size(); i-- > 0;) {
    nn::Context inner = mtp_context(ctx, content_.first_mtp + static_cast<std::int64_t>(i));
    MtpModule::InputGradients gradients = mtp_[i]->backward_input(inner, r.d_mtp[i], r.mtp[i]);
    if (weights) {
      mtp_[i]->backward_weight(inner, r.mtp[i]);
      r.mtp[i] = {};
    }
    const Prediction& prediction = r.m->mtp[static_cast<std::size_t>(content_.first_mtp) + i];
    embedding_->backward(ctx.stream, prediction.inputs, gradients.d_embedding);
    if (i == 0) return std::move(gradients.d_hidden);
    run(ctx.stream, kernels::Add{.a = r.d_mtp[i - 1], .b = gradients.d_hidden, .y = r.d_mtp[i - 1]});
  }
  return {};
}

Tensor Stage::backward_blocks(nn::Context& ctx, Record& r, Tensor d_h, bool weights) {
  r.d_outputs.resize(blocks_.size());
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const comm::Position position("backward", comm::Position::kInherit, static_cast<int>(content_.first_layer) + static_cast<int>(i));
    Tensor d_in = blocks_[i]->backward_input(ctx, d_h, *r.blocks[i]);
    if (weights) {
      blocks_[i]->backward_weight(ctx, *r.blocks[i]);
      r.blocks[i].reset();
      r.inputs[i].reset();
    } else {
      r.d_outputs[i] = std::move(d_h);
    }
    d_h = std::move(d_in);
  }
  return d_h;
}

void Stage::backward_weight(Stream& stream, Record& r) {
  nn::Context ctx = context(stream, *r.m);
  for (std::size_t i = mtp_.size(); i-- > 0;) {
    nn::Context inner = mtp_context(ctx, content_.first_mtp + static_cast<std::int64_t>(i));
    mtp_[i]->backward_weight(inner, r.mtp[i]);
  }
  for (std::size_t i = blocks_.size(); i-- > 0;) blocks_[i]->backward_weight(ctx, *r.blocks[i]);
}

nn::ParameterList Stage::parameters() {
  nn::ParameterList list;
  if (embedding_) list.push_back(&embedding_->weight());
  for (auto& block : blocks_) block->collect(list);
  if (final_norm_) final_norm_->collect(list);
  if (head_) list.push_back(&head_->weight());
  for (auto& module : mtp_) module->collect(list);
  return list;
}

std::vector<Stage::PlacedMoe> Stage::moe_layers() {
  std::vector<PlacedMoe> layers;
  const auto add = [&](std::int64_t layer_idx, Block& block) {
    if (block.moe() != nullptr) layers.push_back({layer_idx, block.moe()});
  };
  for (std::size_t i = 0; i < blocks_.size(); ++i) add(content_.first_layer + static_cast<std::int64_t>(i), *blocks_[i]);
  for (std::size_t k = 0; k < mtp_.size(); ++k) {
    add(options_.shape.num_layers + content_.first_mtp + static_cast<std::int64_t>(k), mtp_[k]->block());
  }
  return layers;
}

void Stage::hold_selection(bool hold) {
  for (auto& block : blocks_) block->attention().hold_selection(hold);
  for (auto& module : mtp_) module->block().attention().hold_selection(hold);
}

}  // namespace hadal::model
