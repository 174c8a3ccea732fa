// AdamW over a model's trainable parameters, with global-norm clipping and an optional moving average (spec/precision.md 7).
// Norm gains, biases and buffers are exempt from decay (nn::ParameterOptions::decays).
#pragma once

#include <vector>

#include "config/config.h"
#include "core/stream.h"
#include "nn/parameter.h"

namespace hadal::optim {

class AdamW {
 public:
  /// State is allocated and zeroed here; the average starts at the parameters' values when `reset_average` is called.
  AdamW(const OptimSection& options, const nn::ParameterList& parameters);

  /// Global L2 norm of all gradients.
  double grad_norm(Stream& stream);
  /// One update with the given rate; gradients are scaled so that their norm is at most clip_norm. They are left as they are.
  void step(Stream& stream, double lr, double grad_norm);
  void zero_grad();
  void reset_average();

  /// Updates done.
  std::int64_t num_steps() const { return num_steps_; }
  void set_num_steps(std::int64_t steps) { num_steps_ = steps; }

  /// State of one parameter, for checkpoints.
  struct Slot {
    nn::Parameter* parameter;
    Tensor m, v;
    Tensor average;  ///< undefined without ema_decay
  };
  std::vector<Slot>& slots() { return slots_; }

 private:
  OptimSection options_;
  std::vector<Slot> slots_;
  std::int64_t num_steps_ = 0;
};

}  // namespace hadal::optim
