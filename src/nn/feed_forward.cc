#include "nn/feed_forward.h"

#include "kernels/linear.h"
#include "kernels/swiglu.h"

namespace hadal::nn {
namespace {

struct FeedForwardSaved : Saved {
  ConstView x;
  Tensor gate_up;  // [T, 2I]; its gradient after backward_input
  Tensor h;        // [T, I]
  ConstView d_y;
};

ParameterOptions parameter_options(double init_std, Shard shard) {
  return {.init = Init::normal(init_std), .replication = shard.whole() ? Replication::kDense : Replication::kTensor};
}

/// Rows of gate or up.
LogicalPart rows_part(std::string name, std::int64_t width, std::int64_t hidden_size, Shard shard, std::int64_t offset) {
  return sliced_part(std::move(name), {width, hidden_size}, 0, shard.begin(width), shard.size(width), offset);
}

}  // namespace

FeedForward::FeedForward(const std::string& name, std::int64_t hidden_size, std::int64_t width, double init_std, Storage storage,
                         Shard shard)
    : hidden_size_(hidden_size),
      width_(shard.size(width)),
      gate_up_(name + ".gate_up", {2 * width_, hidden_size}, storage, parameter_options(init_std, shard),
               {rows_part(name + ".gate_proj.weight", width, hidden_size, shard, 0),
                rows_part(name + ".up_proj.weight", width, hidden_size, shard, width_ * hidden_size)}),
      down_(name + ".down_proj.weight", {hidden_size, width_}, storage, parameter_options(init_std, shard),
            {sliced_part(name + ".down_proj.weight", {hidden_size, width}, 1, shard.begin(width), width_, 0)}) {}

Tensor FeedForward::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  const std::int64_t tokens = x.shape[0];
  Tensor gate_up = Tensor::empty({tokens, 2 * width_}, x.dtype, x.device);
  Tensor h = Tensor::empty({tokens, width_}, x.dtype, x.device);
  Tensor y = Tensor::empty({tokens, hidden_size_}, x.dtype, x.device);
  kernels::linear_forward(ctx.stream, x, gate_up_.value(), gate_up);
  run(ctx.stream, kernels::SwigluForward{.gate_up = gate_up, .row_weight = {}, .h = h});
  kernels::linear_forward(ctx.stream, h, down_.value(), y);
  if (auto* keep = make_saved<FeedForwardSaved>(saved)) {
    keep->x = x;
    keep->gate_up = std::move(gate_up);
    keep->h = std::move(h);
  }
  return y;
}

Tensor FeedForward::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  auto& s = saved_as<FeedForwardSaved>(saved);
  s.d_y = d_y;
  Tensor d_h = Tensor::empty(s.h.shape(), d_y.dtype, d_y.device);
  kernels::linear_backward_input(ctx.stream, d_y, down_.value(), d_h);
  run(ctx.stream,
      kernels::SwigluBackward{.gate_up = s.gate_up, .row_weight = {}, .d_h = d_h, .d_gate_up = s.gate_up, .d_row_weight = {}});
  Tensor d_x = Tensor::empty(s.x.shape, d_y.dtype, d_y.device);
  kernels::linear_backward_input(ctx.stream, s.gate_up, gate_up_.value(), d_x);
  return d_x;
}

void FeedForward::backward_weight(Context& ctx, Saved& saved) {
  auto& s = saved_as<FeedForwardSaved>(saved);
  const GradientTarget d_down = down_.grad_target(), d_gate_up = gate_up_.grad_target();
  kernels::linear_backward_weight(ctx.stream, s.d_y, s.h, d_down.sum, d_down.beta());
  kernels::linear_backward_weight(ctx.stream, s.gate_up, s.x, d_gate_up.sum, d_gate_up.beta());
}

void FeedForward::collect(ParameterList& parameters) {
  parameters.push_back(&gate_up_);
  parameters.push_back(&down_);
}

}  // namespace hadal::nn
