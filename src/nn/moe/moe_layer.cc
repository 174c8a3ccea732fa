#include "nn/moe/moe_layer.h"

#include "core/copy.h"
#include "kernels/router_product.h"
#include "nn/moe/local_exchange.h"

namespace hadal::nn {
namespace {

std::unique_ptr<Layer> shared_experts(const std::string& name, const MoeOptions& o) {
  if (o.num_shared == 0) return nullptr;
  return std::make_unique<FeedForward>(name + ".shared_experts", o.hidden_size, o.num_shared * o.width, o.init_std, o.storage());
}

/// Number in the batch of each token here, where it differs from the row's.
Tensor token_numbers(const Context& ctx, std::int64_t count) {
  if (ctx.token_begin == 0 && ctx.sequence == nullptr) return {};
  Tensor numbers = Tensor::empty({count}, DType::kI64);
  std::int64_t* n = numbers.as<std::int64_t>();
  for (std::int64_t row = 0; row < count; ++row) n[row] = ctx.sequence_of_row(row) * ctx.whole_seq() + ctx.position_of_row(row);
  return moved_to(ctx.stream, std::move(numbers), ctx.stream.device());
}

ConstView view_or_empty(const Tensor& tensor) { return tensor.defined() ? tensor.view() : ConstView{}; }

}  // namespace

/// One micro-batch.
struct MoeLayer::Record : Saved {
  ConstView x;      // [T, d]
  Tensor scores;    // [T, E]
  Tensor experts;   // I32 [T, K]
  Tensor d_scores;  // [T, E] of the balance loss, or undefined
  std::unique_ptr<ExpertRoute> route;
  ExpertsSaved expert_rows;
  SavedPtr shared;
  Tensor y, d_x;  // [T, d]: the shared experts' share, until the others' has come
};

MoeLayer::MoeLayer(const std::string& name, const MoeOptions& options)
    : MoeLayer(name, options, MoeLayout{}, shared_experts(name, options)) {}

MoeLayer::MoeLayer(const std::string& name, const MoeOptions& options, MoeLayout layout, std::unique_ptr<Layer> shared)
    : name_(name),
      options_(options),
      router_(name + ".gate.weight", {options.num_experts, options.hidden_size}, options.storage().accumulation(),
              {.init = Init::normal(options.init_std)}),
      experts_(name + ".experts", {.hidden_size = options.hidden_size,
                                   .num_experts = options.num_experts,
                                   .width = options.width,
                                   .experts = layout.experts,
                                   .width_share = layout.width,
                                   .init_std = options.init_std,
                                   .storage = options.storage()}),
      shared_(std::move(shared)),
      exchange_(std::move(layout.exchange)),
      training_exchange_(std::move(layout.training_exchange)),
      balance_(options.num_experts, options.router, options.balance, std::move(layout.sequence_counts), options.device) {
  HADAL_CHECK((shared_ != nullptr) == (options.num_shared > 0), "{}: {} shared experts", name, options.num_shared);
  if (exchange_ == nullptr) {
    HADAL_CHECK(layout.experts.whole() && layout.width.whole(), "{}: experts in {} x {} shares without an exchange", name,
                layout.experts.count, layout.width.count);
    exchange_ = std::make_shared<LocalExchange>(options.num_experts);
  }
  if (options.has_bias) {
    bias_ = Parameter(name + ".gate.e_score_correction_bias", {options.num_experts}, Storage(DType::kF32, options.device),
                      {.init = Init::zeros(), .decays = false, .trainable = false});
  }
}

/// Chooses experts and prepares the way there; counts loads and adds the balance loss in training.
void MoeLayer::route(Context& ctx, ConstView x, bool training, Record& r) {
  const std::int64_t tokens = x.shape[0];
  Tensor logits = Tensor::empty({tokens, options_.num_experts}, router_.storage());
  run(ctx.stream, kernels::RouterLogits{.x = x, .w = router_.value(), .logits = logits});
  r.scores = Tensor::empty(logits.shape(), router_.storage());
  r.experts = Tensor::empty({tokens, options_.router.top_k}, DType::kI32, x.device);
  Tensor weights = Tensor::empty(r.experts.shape(), router_.storage());
  const Tensor numbers = options_.router.forced ? token_numbers(ctx, tokens) : Tensor{};
  run(ctx.stream, kernels::RouterForward{.options = options_.router,
                                         .logits = logits,
                                         .bias = options_.has_bias ? static_cast<const Parameter&>(bias_).value() : ConstView{},
                                         .token = view_or_empty(numbers),
                                         .scores = r.scores,
                                         .experts = r.experts,
                                         .weights = weights});
  ExpertExchange& exchange = training && training_exchange_ ? *training_exchange_ : *exchange_;
  r.route = exchange.route(ctx.stream, r.experts, weights);
  r.route->start_dispatch(ctx.stream, x);
  if (training) r.d_scores = balance_.add(ctx, r.scores, r.experts);
}

Tensor MoeLayer::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  SavedPtr pass = start_forward(ctx, x, saved != nullptr);
  forward_experts(ctx, *pass);
  Tensor y = finish_forward(ctx, *pass);
  if (saved != nullptr) *saved = std::move(pass);
  return y;
}

SavedPtr MoeLayer::start_forward(Context& ctx, ConstView x, bool keep) {
  auto owned = std::make_unique<Record>();
  Record& r = *owned;
  r.x = x;
  route(ctx, x, keep, r);
  if (shared_) r.y = shared_->forward(ctx, x, keep ? &r.shared : nullptr);
  return owned;
}

void MoeLayer::forward_experts(Context& ctx, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  Tensor rows = r.route->finish_dispatch(ctx.stream);
  Tensor expert_out = experts_.forward(ctx.stream, std::move(rows), r.route->offsets(), r.route->row_weight(), r.expert_rows);
  r.route->start_combine(ctx.stream, std::move(expert_out), {});
}

Tensor MoeLayer::finish_forward(Context& ctx, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  Tensor y = shared_ ? std::move(r.y) : Tensor::empty(r.x.shape, r.x.dtype, r.x.device);
  r.route->finish_combine(ctx.stream, shared_ ? y.view() : View{}, y, {});
  return y;
}

Tensor MoeLayer::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  start_backward(ctx, d_y, saved);
  backward_experts(ctx, saved);
  return finish_backward(ctx, saved);
}

void MoeLayer::start_backward(Context& ctx, ConstView d_y, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  r.route->start_dispatch(ctx.stream, d_y);
  r.d_x = shared_ ? shared_->backward_input(ctx, d_y, *r.shared) : Tensor::empty(d_y.shape, d_y.dtype, d_y.device);
}

void MoeLayer::backward_experts(Context& ctx, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  Tensor d_y_rows = r.route->finish_dispatch(ctx.stream);
  auto [d_rows, d_row_weight] =
      experts_.backward_input(ctx.stream, std::move(d_y_rows), r.route->offsets(), r.route->row_weight(), r.expert_rows);
  r.route->start_combine(ctx.stream, std::move(d_rows), std::move(d_row_weight));
}

Tensor MoeLayer::finish_backward(Context& ctx, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  Tensor d_x = std::move(r.d_x);
  Tensor d_weights = Tensor::empty(r.experts.shape(), router_.storage());
  r.route->finish_combine(ctx.stream, shared_ ? d_x.view() : View{}, d_x, d_weights);
  backward_router(ctx, d_weights, r, d_x);
  return d_x;
}

/// The router's share is added to d_x; its gradient is small and finished here: backward_weight then waits for nothing.
void MoeLayer::backward_router(Context& ctx, ConstView d_weights, Record& r, View d_x) {
  Tensor d_logits = Tensor::empty(r.scores.shape(), router_.storage());
  run(ctx.stream, kernels::RouterBackward{.options = options_.router,
                                          .scores = r.scores,
                                          .experts = r.experts,
                                          .d_weights = d_weights,
                                          .d_scores = view_or_empty(r.d_scores),
                                          .d_logits = d_logits});
  const GradientTarget d_w = router_.grad_target();
  run(ctx.stream, kernels::RouterLogitsBackward{
                      .x = r.x, .w = router_.value(), .d_logits = d_logits, .d_x = d_x, .d_w = d_w.sum, .add = d_w.add});
}

void MoeLayer::backward_weight(Context& ctx, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  experts_.backward_weight(ctx.stream, r.route->offsets(), r.expert_rows);
  if (shared_) shared_->backward_weight(ctx, *r.shared);
}

void MoeLayer::collect(ParameterList& parameters) {
  parameters.push_back(&router_);
  if (options_.has_bias) parameters.push_back(&bias_);
  experts_.collect(parameters);
  if (shared_) shared_->collect(parameters);
}

void MoeLayer::update_bias(Stream& stream, double speed, ConstView grad_norm_squared) {
  if (options_.has_bias && speed != 0) balance_.update_bias(stream, bias_.value(), speed, grad_norm_squared);
}

}  // namespace hadal::nn
