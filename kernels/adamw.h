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
// everything as it was. Without, it is 1.
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
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0, ema_decay = 0;
  std::int64_t step = 1;         ///< t, from 1
};

/// sum of squares in f64, over chunks fixed by n; `result` F64 [1], accumulated.
struct SumSquares {
  static constexpr const char* kName = "sum_squares";
  ConstView x;
  View result;
};

void run(Stream& stream, const AdamW& args);
void run(Stream& stream, const SumSquares& args);

}  // namespace hadal::kernels
