#include "nn/linear.h"

#include <utility>

#include "kernels/linear.h"

namespace hadal::nn {
namespace {

struct LinearSaved : Saved {
  ConstView x;
  ConstView d_y;
};

}  // namespace

Linear::Linear(std::string name, std::int64_t out, std::int64_t in, double init_std, Storage storage)
    : weight_(std::move(name), {out, in}, storage, {.init = Init::normal(init_std)}) {}

Linear::Linear(Parameter weight) : weight_(std::move(weight)) {
  HADAL_CHECK(weight_.shape().rank() == 2, "{}: weight {}", weight_.name(), weight_.shape().str());
}

Tensor Linear::apply(Stream& stream, ConstView x) const {
  Tensor y = Tensor::empty({x.shape[0], out()}, weight_.storage());
  apply(stream, x, y);
  return y;
}

void Linear::apply(Stream& stream, ConstView x, View y) const { kernels::linear_forward(stream, x, weight_.value(), y); }

Tensor Linear::apply_transposed(Stream& stream, ConstView d_y) const {
  Tensor d_x = Tensor::empty({d_y.shape[0], in()}, weight_.storage());
  apply_transposed(stream, d_y, d_x);
  return d_x;
}

void Linear::apply_transposed(Stream& stream, ConstView d_y, View d_x, double beta) const {
  kernels::linear_backward_input(stream, d_y, weight_.value(), d_x, beta);
}

void Linear::accumulate(Stream& stream, ConstView d_y, ConstView x) {
  const GradientTarget d_w = weight_.grad_target();
  kernels::linear_backward_weight(stream, d_y, x, d_w.sum, d_w.beta());
}

Tensor Linear::forward(Context& ctx, ConstView x, SavedPtr* saved) {
  if (auto* kept = make_saved<LinearSaved>(saved)) kept->x = x;
  return apply(ctx.stream, x);
}

Tensor Linear::backward_input(Context& ctx, ConstView d_y, Saved& saved) {
  saved_as<LinearSaved>(saved).d_y = d_y;
  return apply_transposed(ctx.stream, d_y);
}

void Linear::backward_weight(Context& ctx, Saved& saved) {
  const auto& kept = saved_as<LinearSaved>(saved);
  accumulate(ctx.stream, kept.d_y, kept.x);
}

}  // namespace hadal::nn
