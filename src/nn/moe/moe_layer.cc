#include "nn/moe/moe_layer.h"

#include <algorithm>

#include "kernels/grouped_gemm.h"
#include "kernels/linear.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"

namespace hadal::nn {
namespace {

std::vector<LogicalPart> gate_up_parts(const std::string& name, const MoeOptions& o) {
  std::vector<LogicalPart> parts;
  const std::int64_t size = o.width * o.hidden_size;
  for (std::int64_t e = 0; e < o.num_experts; ++e) {
    const std::string expert = fmt::format("{}.experts.{}", name, e);
    parts.push_back(whole_part(expert + ".gate_proj.weight", {o.width, o.hidden_size}, 2 * e * size));
    parts.push_back(whole_part(expert + ".up_proj.weight", {o.width, o.hidden_size}, (2 * e + 1) * size));
  }
  return parts;
}

std::vector<LogicalPart> down_parts(const std::string& name, const MoeOptions& o) {
  std::vector<LogicalPart> parts;
  for (std::int64_t e = 0; e < o.num_experts; ++e) {
    parts.push_back(whole_part(fmt::format("{}.experts.{}.down_proj.weight", name, e), {o.hidden_size, o.width},
                               e * o.width * o.hidden_size));
  }
  return parts;
}

}  // namespace

/// One micro-batch; R = T*K rows sorted by expert.
struct MoeLayer::Record : Saved {
  ConstView x;           // [T, d]
  Tensor scores;         // [T, E]
  Tensor experts;        // I32 [T, K]
  Tensor d_scores;       // [T, E] of the balance loss, or undefined
  Tensor offsets;        // I64 [E + 1]
  Tensor row_token;      // I32 [R]
  Tensor row_pair;       // I32 [R]
  Tensor pair_row;       // I32 [T, K]
  Tensor row_weight;     // [R]
  Tensor rows;           // [R, d]: x in expert order
  Tensor gate_up;        // [R, 2I]; its gradient after backward_input
  Tensor h;              // [R, I], weighted
  Tensor d_y;            // [R, d]: d_y in expert order
  Tensor d_logits;       // [T, E]
  SavedPtr shared;
};

MoeLayer::MoeLayer(const std::string& name, const MoeOptions& options)
    : name_(name),
      options_(options),
      router_(name + ".gate.weight", {options.num_experts, options.hidden_size}, options.dtype, {.init = Init::normal(options.init_std)}),
      gate_up_(name + ".experts.gate_up", {options.num_experts, 2 * options.width, options.hidden_size}, options.dtype,
               {.init = Init::normal(options.init_std), .replication = Replication::kExpert}, gate_up_parts(name, options)),
      down_(name + ".experts.down", {options.num_experts, options.hidden_size, options.width}, options.dtype,
            {.init = Init::normal(options.init_std), .replication = Replication::kExpert}, down_parts(name, options)),
      counts_(Tensor::zeros({options.num_experts}, DType::kI64)),
      balance_loss_(Tensor::zeros({1}, DType::kF64)) {
  if (options.has_bias) {
    bias_ = Parameter(name + ".gate.e_score_correction_bias", {options.num_experts}, DType::kF32,
                      {.init = Init::zeros(), .decays = false, .trainable = false});
  }
  if (options.num_shared > 0) {
    shared_ = std::make_unique<FeedForward>(name + ".shared_experts", options.hidden_size, options.num_shared * options.width,
                                            options.init_std, options.dtype);
  }
}

Tensor MoeLayer::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  const std::int64_t tokens = x.shape[0];
  const std::int64_t k = options_.router.top_k;
  const std::int64_t num_rows = tokens * k;
  auto owned = std::make_unique<Record>();
  Record& r = *owned;
  r.x = x;

  Tensor logits = Tensor::empty({tokens, options_.num_experts}, x.dtype, x.device);
  kernels::linear_forward(ctx.stream, x, router_.value(), logits);
  r.scores = Tensor::empty(logits.shape(), x.dtype, x.device);
  r.experts = Tensor::empty({tokens, k}, DType::kI32, x.device);
  Tensor weights = Tensor::empty({tokens, k}, x.dtype, x.device);
  run(ctx.stream, kernels::RouterForward{.options = options_.router,
                                         .logits = logits,
                                         .bias = options_.has_bias ? static_cast<const Parameter&>(bias_).value() : ConstView{},
                                         .scores = r.scores,
                                         .experts = r.experts,
                                         .weights = weights});
  if (saved != nullptr) {
    const BalanceWeights& b = options_.balance;
    if (b.any()) r.d_scores = Tensor::empty(logits.shape(), x.dtype, x.device);
    run(ctx.stream, kernels::BalanceLoss{.options = options_.router,
                                         .batch = ctx.batch,
                                         .valid_seq = ctx.seq - ctx.num_padding,
                                         .sequence_alpha = b.sequence_alpha,
                                         .expert_alpha = b.expert_alpha,
                                         .device_alpha = b.device_alpha,
                                         .communication_alpha = b.communication_alpha,
                                         .num_devices = b.num_devices,
                                         .scale = ctx.sequence_scale,
                                         .scores = r.scores,
                                         .experts = r.experts,
                                         .counts = counts_,
                                         .loss = balance_loss_,
                                         .d_scores = b.any() ? r.d_scores.view() : View{}});
  }

  r.offsets = Tensor::empty({options_.num_experts + 1}, DType::kI64, x.device);
  r.row_token = Tensor::empty({num_rows}, DType::kI32, x.device);
  r.row_pair = Tensor::empty({num_rows}, DType::kI32, x.device);
  r.pair_row = Tensor::empty({tokens, k}, DType::kI32, x.device);
  run(ctx.stream, kernels::DispatchPlan{.num_experts = options_.num_experts,
                                        .experts = r.experts,
                                        .offsets = r.offsets,
                                        .row_token = r.row_token,
                                        .row_pair = r.row_pair,
                                        .pair_row = r.pair_row});
  r.rows = Tensor::empty({num_rows, options_.hidden_size}, x.dtype, x.device);
  r.row_weight = Tensor::empty({num_rows}, x.dtype, x.device);
  run(ctx.stream, kernels::GatherRows{.x = x, .index = r.row_token, .y = r.rows});
  run(ctx.stream, kernels::GatherRows{.x = weights.view().reshape({num_rows, 1}), .index = r.row_pair, .y = r.row_weight.view().reshape({num_rows, 1})});

  r.gate_up = Tensor::empty({num_rows, 2 * options_.width}, x.dtype, x.device);
  r.h = Tensor::empty({num_rows, options_.width}, x.dtype, x.device);
  Tensor expert_out = Tensor::empty({num_rows, options_.hidden_size}, x.dtype, x.device);
  run(ctx.stream, kernels::GroupedGemmForward{.x = r.rows, .offsets = r.offsets, .w = gate_up_.value(), .y = r.gate_up});
  run(ctx.stream, kernels::SwigluForward{.gate_up = r.gate_up, .row_weight = r.row_weight, .h = r.h});
  run(ctx.stream, kernels::GroupedGemmForward{.x = r.h, .offsets = r.offsets, .w = down_.value(), .y = expert_out});

  Tensor y;
  if (shared_) {
    y = shared_->forward(ctx, x, saved == nullptr ? nullptr : &r.shared);
    run(ctx.stream, kernels::CombineRows{.x = expert_out, .index = r.pair_row, .base = y, .y = y});
  } else {
    y = Tensor::empty(x.shape, x.dtype, x.device);
    run(ctx.stream, kernels::CombineRows{.x = expert_out, .index = r.pair_row, .base = {}, .y = y});
  }
  if (saved != nullptr) *saved = std::move(owned);
  return y;
}

Tensor MoeLayer::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  const std::int64_t tokens = d_y.shape[0];
  const std::int64_t num_rows = r.h.shape()[0];
  r.d_y = Tensor::empty({num_rows, options_.hidden_size}, d_y.dtype, d_y.device);
  run(ctx.stream, kernels::GatherRows{.x = d_y, .index = r.row_token, .y = r.d_y});
  Tensor d_h = Tensor::empty(r.h.shape(), d_y.dtype, d_y.device);
  Tensor d_row_weight = Tensor::empty({num_rows}, d_y.dtype, d_y.device);
  run(ctx.stream, kernels::GroupedGemmBackwardInput{.d_y = r.d_y, .offsets = r.offsets, .w = down_.value(), .d_x = d_h});
  run(ctx.stream, kernels::SwigluBackward{.gate_up = r.gate_up, .row_weight = r.row_weight, .d_h = d_h, .d_gate_up = r.gate_up, .d_row_weight = d_row_weight});
  d_h.reset();
  Tensor d_rows = Tensor::empty({num_rows, options_.hidden_size}, d_y.dtype, d_y.device);
  run(ctx.stream, kernels::GroupedGemmBackwardInput{.d_y = r.gate_up, .offsets = r.offsets, .w = gate_up_.value(), .d_x = d_rows});

  Tensor d_weights = Tensor::empty(r.experts.shape(), d_y.dtype, d_y.device);
  run(ctx.stream, kernels::GatherRows{.x = d_row_weight.view().reshape({num_rows, 1}), .index = r.pair_row.view().reshape({num_rows}),
                                      .y = d_weights.view().reshape({num_rows, 1})});
  r.d_logits = Tensor::empty({tokens, options_.num_experts}, d_y.dtype, d_y.device);
  run(ctx.stream, kernels::RouterBackward{.options = options_.router,
                                          .scores = r.scores,
                                          .experts = r.experts,
                                          .d_weights = d_weights,
                                          .d_scores = r.d_scores.defined() ? r.d_scores.view() : View{},
                                          .d_logits = r.d_logits});

  Tensor d_x;
  if (shared_) {
    d_x = shared_->backward_input(ctx, d_y, *r.shared);
    run(ctx.stream, kernels::CombineRows{.x = d_rows, .index = r.pair_row, .base = d_x, .y = d_x});
  } else {
    d_x = Tensor::empty(d_y.shape, d_y.dtype, d_y.device);
    run(ctx.stream, kernels::CombineRows{.x = d_rows, .index = r.pair_row, .base = {}, .y = d_x});
  }
  kernels::linear_backward_input(ctx.stream, r.d_logits, router_.value(), d_x, 1.0);
  return d_x;
}

void MoeLayer::backward_weight(Context& ctx, Saved& saved) {
  Record& r = saved_as<Record>(saved);
  run(ctx.stream, kernels::GroupedGemmBackwardWeight{.d_y = r.d_y, .x = r.h, .offsets = r.offsets, .d_w = down_.grad()});
  run(ctx.stream, kernels::GroupedGemmBackwardWeight{.d_y = r.gate_up, .x = r.rows, .offsets = r.offsets, .d_w = gate_up_.grad()});
  kernels::linear_backward_weight(ctx.stream, r.d_logits, r.x, router_.grad());
  if (shared_) shared_->backward_weight(ctx, *r.shared);
}

void MoeLayer::collect(ParameterList& parameters) {
  parameters.push_back(&router_);
  if (options_.has_bias) parameters.push_back(&bias_);
  parameters.push_back(&gate_up_);
  parameters.push_back(&down_);
  if (shared_) shared_->collect(parameters);
}

void MoeLayer::reset_statistics() {
  counts_.fill_zero();
  balance_loss_.fill_zero();
}

void MoeLayer::update_bias(double speed) {
  if (!options_.has_bias || speed == 0) return;
  const auto counts = counts_.span<std::int64_t>();
  std::int64_t total = 0;
  for (const std::int64_t count : counts) total += count;
  float* bias = bias_.value().as<float>();
  for (std::size_t e = 0; e < counts.size(); ++e) {
    // sign(mean - count) in integers: total against count * E.
    const std::int64_t scaled = counts[e] * options_.num_experts;
    if (scaled != total) bias[e] += static_cast<float>(scaled < total ? speed : -speed);
  }
}

double MoeLayer::max_violation() const {
  const auto counts = counts_.span<std::int64_t>();
  std::int64_t total = 0;
  for (const std::int64_t count : counts) total += count;
  if (total == 0) return 0;
  const double mean = static_cast<double>(total) / static_cast<double>(counts.size());
  return static_cast<double>(*std::max_element(counts.begin(), counts.end())) / mean - 1.0;
}

}  // namespace hadal::nn
