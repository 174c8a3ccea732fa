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
      std::make_unique<nn::FeedForward>(name + ".shared_experts", o.hidden_size, o.num_shared * o.width, o.init_std, o.dtype, groups.tensor()),
      groups.tp);
}

}  // namespace

struct Block::Record : nn::Saved {
  nn::RmsNormSaved attention_norm;
  Tensor attention_in;   // [T, d]: normed h
  nn::SavedPtr attention;
  Tensor middle;         // [T, d]: h'
  nn::RmsNormSaved ffn_norm;
  Tensor ffn_in;         // [T, d]: normed h'
  nn::SavedPtr ffn;
  Tensor d_middle;       // [T, d]: kept until backward_weight
};

Block::Block(const ModelOptions& model, std::int64_t layer_idx, const std::shared_ptr<const nn::RopeTable>& rope,
             const parallel::LayerGroups& groups)
    : attention_norm_(layer_name(layer_idx, "input_layernorm"), model.shape.hidden_size, model.shape.rms_norm_eps, model.dtype),
      attention_(nn::make_attention(sharded_attention(model, layer_idx, groups), layer_name(layer_idx, "self_attn"), rope, groups.selection)),
      attention_rows_(*attention_, groups.tp),
      ffn_norm_(layer_name(layer_idx, "post_attention_layernorm"), model.shape.hidden_size, model.shape.rms_norm_eps, model.dtype) {
  const std::string name = layer_name(layer_idx, "mlp");
  if (is_moe_layer(model.shape, layer_idx)) {
    const nn::MoeOptions options = moe_options(model);
    auto moe = std::make_unique<nn::MoeLayer>(name, options, parallel::moe_layout(groups), shared_experts(name, options, groups));
    moe_ = moe.get();
    ffn_ = std::move(moe);
  } else {
    ffn_ = std::make_unique<parallel::TensorParallelLayer>(
        std::make_unique<nn::FeedForward>(name, model.shape.hidden_size, model.shape.intermediate_size, model.shape.init_std, model.dtype, groups.tensor()),
        groups.tp);
  }
}

Tensor Block::forward(nn::Context& ctx, ConstView h, nn::SavedPtr* saved) {
  auto owned = std::make_unique<Record>();
  Record& r = *owned;
  const bool keep = saved != nullptr;
  r.attention_in = attention_norm_.forward(ctx, h, keep ? &r.attention_norm : nullptr);
  r.middle = attention_rows_.forward(ctx, r.attention_in, keep ? &r.attention : nullptr);
  run(ctx.stream, kernels::Add{.a = r.middle, .b = h, .y = r.middle});
  r.ffn_in = ffn_norm_.forward(ctx, r.middle, keep ? &r.ffn_norm : nullptr);
  Tensor out = ffn_->forward(ctx, r.ffn_in, keep ? &r.ffn : nullptr);
  run(ctx.stream, kernels::Add{.a = out, .b = r.middle, .y = out});
  if (keep) *saved = std::move(owned);
  return out;
}

Tensor Block::backward_input(nn::Context& ctx, ConstView d_out, nn::Saved& saved) {
  Record& r = nn::saved_as<Record>(saved);
  const Tensor d_ffn_in = ffn_->backward_input(ctx, d_out, *r.ffn);
  r.d_middle = ffn_norm_.backward(ctx, d_ffn_in, d_out, r.ffn_norm);
  const Tensor d_attention_in = attention_rows_.backward_input(ctx, r.d_middle, *r.attention);
  return attention_norm_.backward(ctx, d_attention_in, r.d_middle, r.attention_norm);
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
