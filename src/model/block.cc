#include "model/block.h"

#include "kernels/rows.h"
#include "nn/attention/make_attention.h"
#include "nn/feed_forward.h"
#include "parallel/moe_layout.h"

namespace hadal::model {
namespace {

std::string layer_name(std::int64_t layer_idx, const char* part) { return fmt::format("model.layers.{}.{}", layer_idx, part); }

nn::AttentionOptions sharded_attention(const ModelOptions& model, std::int64_t layer_idx, const parallel::LayerGroups& groups) {
  nn::AttentionOptions options = attention_options(model, layer_idx);
  options.heads = groups.tensor();
  return options;
}

/// Shared experts are one SwiGLU over the tokens here; with tp it holds channels and stands between two borders.
std::unique_ptr<nn::Layer> shared_experts(const std::string& name, const nn::MoeOptions& o, const parallel::LayerGroups& groups) {
  if (o.num_shared == 0) return nullptr;
  return std::make_unique<parallel::TensorParallelLayer>(
      std::make_unique<nn::FeedForward>(name + ".shared_experts", o.hidden_size, o.num_shared * o.width, o.init_std, o.storage(), groups.tensor()),
      groups.tp);
}

}  // namespace

struct Block::Record : nn::Saved {
  Tensor h;              // [T, d]
  nn::RmsNormSaved attention_norm;
  Tensor attention_in;   // [T, d]: normed h
  nn::SavedPtr attention;
  Tensor middle;         // [T, d]: h'
  nn::RmsNormSaved ffn_norm;
  Tensor ffn_in;         // [T, d]: normed h'
  nn::SavedPtr ffn;
  Tensor d_out;          // [T, d]: until backward_weight, like d_middle
  Tensor d_middle;       // [T, d]
};

/// What the segments of one pass share.
struct Block::Forward {
  nn::Context ctx;
  Tensor& h;
  nn::SavedPtr* saved;
  std::unique_ptr<Record> record{};  // until it is handed over

  bool keep() const { return saved != nullptr; }
  /// h = middle + out, and the record goes to its owner.
  void end(Tensor out) {
    run(ctx.stream, kernels::Add{.a = out, .b = record->middle, .y = out});
    h = std::move(out);
    if (keep()) *saved = std::move(record);
    record.reset();
  }
};

struct Block::Backward {
  nn::Context ctx;
  Tensor& d_h;
  nn::SavedPtr& saved;
  bool weights;

  Record& record() { return nn::saved_as<Record>(*saved); }
};

Block::Block(const ModelOptions& model, std::int64_t layer_idx, const std::shared_ptr<const nn::RopeTable>& rope,
             const parallel::LayerGroups& groups)
    : layer_idx_(static_cast<int>(layer_idx)),
      attention_norm_(layer_name(layer_idx, "input_layernorm"), model.shape.hidden_size, model.shape.rms_norm_eps, model.storage()),
      attention_(nn::make_attention(sharded_attention(model, layer_idx, groups), layer_name(layer_idx, "self_attn"), rope, groups.selection)),
      attention_rows_(*attention_, groups.tp),
      ffn_norm_(layer_name(layer_idx, "post_attention_layernorm"), model.shape.hidden_size, model.shape.rms_norm_eps, model.storage()) {
  const std::string name = layer_name(layer_idx, "mlp");
  if (is_moe_layer(model.shape, layer_idx)) {
    const nn::MoeOptions options = moe_options(model);
    auto moe = std::make_unique<nn::MoeLayer>(name, options, parallel::moe_layout(groups), shared_experts(name, options, groups));
    moe_ = moe.get();
    ffn_ = std::move(moe);
  } else {
    ffn_ = std::make_unique<parallel::TensorParallelLayer>(
        std::make_unique<nn::FeedForward>(name, model.shape.hidden_size, model.shape.intermediate_size, model.shape.init_std, model.storage(), groups.tensor()),
        groups.tp);
  }
}

void Block::add_forward(SegmentList& list, const nn::Context& ctx, Tensor& h, nn::SavedPtr* saved) {
  auto pass = std::make_shared<Forward>(Forward{.ctx = ctx, .h = h, .saved = saved});
  list.compute("attention", layer_idx_, [this, pass] { forward_attention(*pass); });
  if (moe_ == nullptr) {
    list.compute("feed forward", layer_idx_, [this, pass] {
      Record& r = *pass->record;
      pass->end(ffn_->forward(pass->ctx, r.ffn_in, pass->keep() ? &r.ffn : nullptr));
    });
    return;
  }
  list.network("dispatch", layer_idx_, [this, pass] {
    Record& r = *pass->record;
    r.ffn = moe_->start_forward(pass->ctx, r.ffn_in, pass->keep());
  });
  list.network("experts", layer_idx_, [this, pass] { moe_->forward_experts(pass->ctx, *pass->record->ffn); });
  list.compute("combine", layer_idx_, [this, pass] { pass->end(moe_->finish_forward(pass->ctx, *pass->record->ffn)); });
}

/// Up to what the feed-forward layer reads.
void Block::forward_attention(Forward& pass) {
  pass.record = std::make_unique<Record>();
  Record& r = *pass.record;
  nn::Context& ctx = pass.ctx;
  r.h = std::move(pass.h);
  r.attention_in = attention_norm_.forward(ctx, r.h, pass.keep() ? &r.attention_norm : nullptr);
  r.middle = attention_rows_.forward(ctx, r.attention_in, pass.keep() ? &r.attention : nullptr);
  run(ctx.stream, kernels::Add{.a = r.middle, .b = r.h, .y = r.middle});
  r.ffn_in = ffn_norm_.forward(ctx, r.middle, pass.keep() ? &r.ffn_norm : nullptr);
}

void Block::add_backward(SegmentList& list, const nn::Context& ctx, Tensor& d_h, nn::SavedPtr& saved, bool weights) {
  auto pass = std::make_shared<Backward>(Backward{.ctx = ctx, .d_h = d_h, .saved = saved, .weights = weights});
  if (moe_ == nullptr) {
    list.compute("feed forward", layer_idx_, [this, pass] {
      Record& r = pass->record();
      r.d_out = std::move(pass->d_h);
      pass->d_h = ffn_->backward_input(pass->ctx, r.d_out, *r.ffn);
      if (pass->weights) ffn_->backward_weight(pass->ctx, *r.ffn);
    });
    list.compute("attention", layer_idx_, [this, pass] { backward_attention(*pass); });
    return;
  }
  list.network("dispatch", layer_idx_, [this, pass] {
    Record& r = pass->record();
    r.d_out = std::move(pass->d_h);
    moe_->start_backward(pass->ctx, r.d_out, *r.ffn);
  });
  list.network("experts", layer_idx_, [this, pass] { moe_->backward_experts(pass->ctx, *pass->record().ffn); });
  list.compute("attention", layer_idx_, [this, pass] {
    Record& r = pass->record();
    if (pass->weights) moe_->backward_weight(pass->ctx, *r.ffn);
    pass->d_h = moe_->finish_backward(pass->ctx, *r.ffn);
    backward_attention(*pass);
  });
}

/// From the gradient of what the feed-forward layer reads, in d_h.
void Block::backward_attention(Backward& pass) {
  Record& r = pass.record();
  nn::Context& ctx = pass.ctx;
  r.d_middle = ffn_norm_.backward(ctx, pass.d_h, r.d_out, r.ffn_norm);
  const Tensor d_attention_in = attention_rows_.backward_input(ctx, r.d_middle, *r.attention);
  pass.d_h = attention_norm_.backward(ctx, d_attention_in, r.d_middle, r.attention_norm);
  if (!pass.weights) return;
  attention_rows_.backward_weight(ctx, *r.attention);
  pass.saved.reset();
}

void Block::backward_weight(nn::Context& ctx, nn::Saved& saved) {
  Record& r = nn::saved_as<Record>(saved);
  ffn_->backward_weight(ctx, *r.ffn);
  attention_rows_.backward_weight(ctx, *r.attention);
}

void Block::collect(nn::ParameterList& parameters) {
  attention_norm_.collect(parameters);
  attention_->collect(parameters);
  ffn_norm_.collect(parameters);
  ffn_->collect(parameters);
}

Tensor Block::forward(const nn::Context& ctx, Tensor h) {
  SegmentList list{"forward", {}};
  add_forward(list, ctx, h, nullptr);
  run_segments(list);
  return h;
}

Tensor Block::decode(nn::Context& ctx, ConstView h, nn::AttentionCache& cache) {
  const Tensor attention_in = attention_norm_.forward(ctx, h, nullptr);
  Tensor middle = attention_->decode(ctx, attention_in, cache);
  run(ctx.stream, kernels::Add{.a = middle, .b = h, .y = middle});
  const Tensor ffn_in = ffn_norm_.forward(ctx, middle, nullptr);
  Tensor out = ffn_->forward(ctx, ffn_in, nullptr);
  run(ctx.stream, kernels::Add{.a = out, .b = middle, .y = out});
  return out;
}

}  // namespace hadal::model
