#include "nn/rms_norm.h"

#include "kernels/rms_norm.h"

namespace hadal::nn {

RmsNorm::RmsNorm(const std::string& name, std::int64_t width, double eps, Storage storage)
    : gain_(name + ".weight", {width}, storage.accumulation(), {.init = Init::ones(), .decays = false}), eps_(eps) {}

Tensor RmsNorm::forward(Context& ctx, ConstView x, RmsNormSaved* saved) {
  Tensor y = Tensor::empty(x.shape, x.dtype, x.device);
  Tensor inverse_rms = Tensor::empty({x.shape[0]}, accumulation_dtype(x.dtype), x.device);
  run(ctx.stream, kernels::RmsNormForward{.x = x, .gain = gain_.value(), .eps = eps_, .y = y, .inverse_rms = inverse_rms});
  if (saved != nullptr) *saved = {x, std::move(inverse_rms)};
  return y;
}

Tensor RmsNorm::backward(Context& ctx, ConstView d_y, ConstView d_residual, const RmsNormSaved& saved) {
  Tensor d_x = Tensor::empty(d_y.shape, d_y.dtype, d_y.device);
  run(ctx.stream, kernels::RmsNormBackward{.x = saved.x,
                                           .gain = gain_.value(),
                                           .inverse_rms = saved.inverse_rms,
                                           .d_y = d_y,
                                           .d_residual = d_residual,
                                           .d_x = d_x,
                                           .d_gain = gain_.grad()});
  return d_x;
}

}  // namespace hadal::nn
