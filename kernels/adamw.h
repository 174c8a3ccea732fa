// One AdamW step over one parameter (spec/precision.md 7), in one pass:
//   g = grad * factor;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= lr ( (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps) + weight_decay p );  ema = ema_decay ema + (1 - ema_decay) p
//   working = bf16(p)
// grad is left as it is. All of one dtype, f32 or f64, n elements; m and v may both be bf16 instead: arithmetic is in the dtype of the
// value, p sees m and v as computed, and they are rounded to nearest even when they are stored. `working` is what a bf16 model
// computes with while `value` is its master copy.
//
// The factor comes from the norm of all gradients where the device has it, so that no step waits for the host: with
// grad_norm_squared it is min(1, clip_norm / sqrt(grad_norm_squared)) (1 where clip_norm is 0), and a norm that is not finite leaves
// everything as it was. Without, it is 1. What changes from step to step is read where the step runs, so that a recorded step
// (core/graph.h) goes on with the values of each launch.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct AdamW {
  static constexpr const char* kName = "adamw";
  ConstView grad;
  View value, m, v;
  View ema;                      ///< empty: none
  View working{};                ///< bf16 [n]; empty: none
  ConstView grad_norm_squared{}; ///< F64 [1] on the stream's device, or empty
  double clip_norm = 0;          ///< used with grad_norm_squared; 0: no clipping
  ConstView rates;               ///< adamw_rates, on the stream's device
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0, ema_decay = 0;
};

/// F64 [3] on the host: lr, 1 - beta1^t, 1 - beta2^t of step t, from 1.
Tensor adamw_rates(double lr, double beta1, double beta2, std::int64_t t);

/// sum of squares in f64, over chunks fixed by n; `result` F64 [1], accumulated.
struct SumSquares {
  static constexpr const char* kName = "sum_squares";
  ConstView x;
  View result;
};

void run(Stream& stream, const AdamW& args);
void run(Stream& stream, const SumSquares& args);

}  // namespace hadal::kernels
