#include "model/stage.h"

#include <utility>

#include "comm/position.h"
#include "kernels/rows.h"
#include "nn/attention/make_attention.h"

namespace hadal::model {
namespace {

constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
constexpr const char* kHeadName = "lm_head.weight";

template <class Layer>
void tell(const Stage::Complete& complete, Layer& layer) {
  nn::ParameterList parameters;
  layer.collect(parameters);
  complete(parameters);
}

}  // namespace

std::shared_ptr<parallel::Embedding> SharedTables::embedding() {
  const ModelSection& shape = model_.shape;
  if (!embedding_) {
    embedding_ = std::make_shared<parallel::Embedding>(kEmbeddingName, shape.vocab_size, shape.hidden_size, shape.init_std, model_.storage(), groups_.tp);
  }
  return embedding_;
}

std::shared_ptr<parallel::Head> SharedTables::head() {
  const ModelSection& shape = model_.shape;
  if (!head_) head_ = std::make_shared<parallel::Head>(kHeadName, shape.vocab_size, shape.hidden_size, shape.init_std, model_.storage(), groups_.tp);
  return head_;
}

int SharedTables::order_of(const nn::Parameter& parameter) const {
  if (embedding_ && &parameter == &embedding_->weight()) return 0;
  return head_ && &parameter == &head_->weight() ? 1 : 2;
}

/// The memory behind every gradient stays until backward_weight is done with it.
struct Stage::Record {
  const MicroBatch* m = nullptr;
  std::vector<nn::SavedPtr> blocks;
  Tensor head_in;                 // [T', d]: the final norm's input
  nn::RmsNormSaved final_norm;
  Tensor d_normed;                // of the head's output
  std::vector<MtpModule::Record> mtp;
  std::vector<Tensor> hidden, embeddings, d_mtp;  // [T', d] of each MTP module: h^{k-1}, its tokens, gradient of h^k
};

void Stage::RecordDeleter::operator()(Record* record) const { delete record; }

Stage::Stage(const ModelOptions& options, const StageContent& content, const parallel::LayerGroups& groups, SharedTables& tables)
    : options_(options), content_(content), groups_(groups), rope_(nn::make_rope_table(attention_options(options, 0))) {
  if (content.needs_embedding()) embedding_ = tables.embedding();
  for (std::int64_t i = 0; i < content.num_layers; ++i) {
    blocks_.push_back(std::make_unique<Block>(options, content.first_layer + i, rope_, groups));
  }
  if (content.head) final_norm_ = std::make_unique<nn::RmsNorm>("model.norm", options.shape.hidden_size, options.shape.rms_norm_eps, options.storage());
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
  const PassPtr pass = forward_pass(stream, m, std::move(x), record, outcome);
  run_segments(pass->list);
  return last ? Tensor() : std::move(pass->rows);
}

Stage::PassPtr Stage::forward_pass(Stream& stream, const MicroBatch& m, Tensor x, RecordPtr* record, Outcome& outcome) {
  HADAL_CHECK_EQ(static_cast<std::int64_t>(m.mtp.size()), options_.shape.mtp.depth);
  nn::Context ctx = context(stream, m);
  Record* r = nullptr;
  if (record != nullptr) {
    record->reset(new Record);
    r = record->get();
    r->m = &m;
    r->blocks.resize(blocks_.size());
    for (auto* tensors : {&r->hidden, &r->embeddings, &r->d_mtp}) tensors->resize(mtp_.size());
    r->mtp.resize(mtp_.size());
  }
  HADAL_CHECK(outcome.losses.shape == Shape{static_cast<std::int64_t>(m.mtp.size()) + 1}, "losses of {} MTP depths in {}", m.mtp.size(),
              outcome.losses.shape.str());

  auto pass = std::make_unique<Pass>(Pass{.list = {"forward", {}}, .rows = std::move(x)});
  Tensor& rows = pass->rows;
  if (content_.embedding) {
    pass->list.compute("embedding", comm::Position::kInherit, [this, &stream, &m, &rows] { rows = embedding_->forward(stream, m.tokens); });
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) blocks_[i]->add_forward(pass->list, ctx, rows, r == nullptr ? nullptr : &r->blocks[i]);
  if (content_.head) {
    pass->list.compute("head", comm::Position::kInherit,
                       [this, ctx, &m, &rows, r, &outcome]() mutable { run_head(ctx, m, rows, r, outcome); });
  }
  for (std::int64_t i = 0; i < content_.num_mtp; ++i) add_mtp(*pass, ctx, m, i, r, outcome);
  return pass;
}

/// rows: the final norm's input, then its output.
void Stage::run_head(nn::Context& ctx, const MicroBatch& m, Tensor& rows, Record* r, Outcome& outcome) {
  Tensor normed = final_norm_->forward(ctx, rows, r == nullptr ? nullptr : &r->final_norm);
  if (r != nullptr) r->d_normed = Tensor::empty(normed.shape(), normed.dtype(), normed.device());
  const View d_normed = r == nullptr ? View{} : r->d_normed.view();
  parallel::Head::Result result = head_->loss(ctx.stream, normed, m.main, 1.0, outcome.losses.rows(0, 1), d_normed, r == nullptr);
  outcome.token_loss = std::move(result.token_loss);
  outcome.choice = std::move(result.prediction);
  if (r != nullptr) r->head_in = std::move(rows);
  rows = std::move(normed);
}

void Stage::add_mtp(Pass& pass, const nn::Context& ctx, const MicroBatch& m, std::int64_t i, Record* r, Outcome& outcome) {
  const auto at = static_cast<std::size_t>(i);
  const std::int64_t k = content_.first_mtp + i;
  const int layer_idx = layer_of_mtp(at);
  const Prediction& prediction = m.mtp[static_cast<std::size_t>(k)];
  nn::Context inner = mtp_context(ctx, k);
  MtpModule& module = *mtp_[at];
  Tensor& rows = pass.rows;
  pass.list.compute("mtp input", layer_idx, [this, inner, at, r, &module, &prediction, &rows]() mutable {
    Tensor embedding = embedding_->forward(inner.stream, prediction.inputs);
    Tensor projected = module.project(inner, embedding, rows, r == nullptr ? nullptr : &r->mtp[at]);
    if (r != nullptr) {
      r->hidden[at] = std::move(rows);
      r->embeddings[at] = std::move(embedding);
    }
    rows = std::move(projected);
  });
  module.block().add_forward(pass.list, inner, rows, r == nullptr ? nullptr : &r->mtp[at].block);
  const double scale = m.mtp_weight / static_cast<double>(m.mtp.size());
  pass.list.compute("mtp head", layer_idx, [this, inner, at, k, scale, r, &module, &prediction, &rows, &outcome]() mutable {
    rows = module.finish(inner, std::move(rows), r == nullptr ? nullptr : &r->mtp[at]);
    View d_out{};
    if (r != nullptr) d_out = r->d_mtp[at] = Tensor::empty(rows.shape(), rows.dtype(), rows.device());
    const View sum = outcome.losses.rows(k + 1, k + 2);
    parallel::Head::Result result = head_->loss(inner.stream, rows, prediction, scale, sum, d_out, r == nullptr && k == 0);
    if (k == 0) outcome.draft = std::move(result.prediction);
  });
}

Tensor Stage::backward_input(Stream& stream, Record& r, Tensor d_y, bool weights, const Complete* complete) {
  const PassPtr pass = backward_pass(stream, r, std::move(d_y), weights, complete);
  run_segments(pass->list);
  return std::move(pass->rows);
}

Stage::PassPtr Stage::backward_pass(Stream& stream, Record& r, Tensor d_y, bool weights, const Complete* complete) {
  nn::Context ctx = context(stream, *r.m);
  auto pass = std::make_unique<Pass>(Pass{.list = {"backward", {}}, .rows = std::move(d_y)});
  Tensor& rows = pass->rows;
  for (std::int64_t i = content_.num_mtp; i-- > 0;) add_mtp_backward(*pass, ctx, r, i, weights, complete);
  if (content_.head) {
    pass->list.compute("head", comm::Position::kInherit, [this, ctx, &r, &rows]() mutable {
      // The gradient of the normed rows from the MTP modules, where there is one.
      if (rows.defined()) run(ctx.stream, kernels::Add{.a = r.d_normed, .b = rows, .y = r.d_normed});
      rows = final_norm_->backward(ctx, r.d_normed, {}, r.final_norm);
      r.head_in.reset();
      r.d_normed.reset();
    });
  }
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    blocks_[i]->add_backward(pass->list, ctx, rows, r.blocks[i], weights);
    if (weights && complete != nullptr) {
      pass->list.compute("complete", layer_of_block(i), [this, i, complete] { tell(*complete, *blocks_[i]); });
    }
  }
  if (content_.embedding) {
    pass->list.compute("embedding", comm::Position::kInherit, [this, &stream, &r, &rows] {
      embedding_->backward(stream, r.m->tokens, rows);
      rows.reset();
    });
  }
  return pass;
}

void Stage::add_mtp_backward(Pass& pass, const nn::Context& ctx, Record& r, std::int64_t i, bool weights, const Complete* complete) {
  const auto at = static_cast<std::size_t>(i);
  const std::int64_t k = content_.first_mtp + i;
  const int layer_idx = layer_of_mtp(at);
  nn::Context inner = mtp_context(ctx, k);
  MtpModule& module = *mtp_[at];
  Tensor& rows = pass.rows;
  pass.list.compute("mtp head", layer_idx, [inner, at, &r, &module, &rows]() mutable {
    if (rows.defined()) run(inner.stream, kernels::Add{.a = r.d_mtp[at], .b = rows, .y = r.d_mtp[at]});
    rows = module.backward_finish(inner, r.d_mtp[at], r.mtp[at]);
  });
  module.block().add_backward(pass.list, inner, rows, r.mtp[at].block, weights);
  pass.list.compute("mtp input", layer_idx, [this, inner, at, k, weights, complete, &r, &module, &rows]() mutable {
    MtpModule::InputGradients gradients = module.backward_project(inner, std::move(rows), r.mtp[at]);
    if (weights) {
      module.backward_weight(inner, r.mtp[at]);
      r.mtp[at] = {};
      if (complete != nullptr) tell(*complete, module);
    }
    embedding_->backward(inner.stream, r.m->mtp[static_cast<std::size_t>(k)].inputs, gradients.d_embedding);
    rows = std::move(gradients.d_hidden);
  });
}

void Stage::backward_weight(Stream& stream, Record& r, const Complete* complete) {
  nn::Context ctx = context(stream, *r.m);
  for (std::size_t i = mtp_.size(); i-- > 0;) {
    const comm::Position position(nullptr, comm::Position::kInherit, layer_of_mtp(i));
    nn::Context inner = mtp_context(ctx, content_.first_mtp + static_cast<std::int64_t>(i));
    mtp_[i]->backward_weight(inner, r.mtp[i]);
    if (complete != nullptr) tell(*complete, *mtp_[i]);
  }
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const comm::Position position(nullptr, comm::Position::kInherit, layer_of_block(i));
    blocks_[i]->backward_weight(ctx, *r.blocks[i]);
    if (complete != nullptr) tell(*complete, *blocks_[i]);
  }
}

int Stage::layer_of_block(std::size_t i) const { return static_cast<int>(content_.first_layer) + static_cast<int>(i); }

int Stage::layer_of_mtp(std::size_t i) const {
  return static_cast<int>(options_.shape.num_layers + content_.first_mtp) + static_cast<int>(i);
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
  for (std::size_t i = 0; i < blocks_.size(); ++i) add(layer_of_block(i), *blocks_[i]);
  for (std::size_t k = 0; k < mtp_.size(); ++k) add(layer_of_mtp(k), mtp_[k]->block());
  return layers;
}

void Stage::hold_selection(bool hold) {
  for (auto& block : blocks_) block->attention().hold_selection(hold);
  for (auto& module : mtp_) module->block().attention().hold_selection(hold);
}

}  // namespace hadal::model
