#include "optim/adamw.h"

#include <cmath>
#include <cstring>

#include "kernels/adamw.h"

namespace hadal::optim {

AdamW::AdamW(const OptimSection& options, const nn::ParameterList& parameters) : options_(options) {
  for (nn::Parameter* parameter : parameters) {
    if (!parameter->options().trainable) continue;
    Slot slot{parameter, Tensor::zeros(parameter->shape(), parameter->dtype()), Tensor::zeros(parameter->shape(), parameter->dtype()), {}};
    if (options.ema_decay > 0) slot.average = Tensor::zeros(parameter->shape(), parameter->dtype());
    slots_.push_back(std::move(slot));
  }
}

double AdamW::grad_norm(Stream& stream) {
  Tensor sum = Tensor::zeros({1}, DType::kF64);
  for (const Slot& slot : slots_) run(stream, kernels::SumSquares{.x = slot.parameter->grad(), .result = sum});
  return std::sqrt(*sum.as<double>());
}

void AdamW::step(Stream& stream, double lr, double grad_norm) {
  ++num_steps_;
  const bool clip = options_.clip_norm > 0 && grad_norm > options_.clip_norm;
  const double grad_scale = clip ? options_.clip_norm / grad_norm : 1.0;
  for (Slot& slot : slots_) {
    run(stream, kernels::AdamW{.grad = slot.parameter->grad(),
                               .value = slot.parameter->value(),
                               .m = slot.m,
                               .v = slot.v,
                               .ema = slot.average.defined() ? slot.average.view() : View{},
                               .grad_scale = grad_scale,
                               .lr = lr,
                               .beta1 = options_.beta1,
                               .beta2 = options_.beta2,
                               .eps = options_.eps,
                               .weight_decay = slot.parameter->options().decays ? options_.weight_decay : 0.0,
                               .ema_decay = options_.ema_decay,
                               .step = num_steps_});
  }
}

void AdamW::zero_grad() {
  for (Slot& slot : slots_) slot.parameter->zero_grad();
}

void AdamW::reset_average() {
  for (Slot& slot : slots_) {
    if (slot.average.defined()) std::memcpy(slot.average.view().data, slot.parameter->value().data, slot.average.bytes());
  }
}

}  // namespace hadal::optim
