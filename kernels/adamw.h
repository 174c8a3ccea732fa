// One AdamW step over one parameter (spec/precision.md 7), in one pass:
//   g = grad * grad_scale;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= lr ( (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps) + weight_decay p );  ema = ema_decay ema + (1 - ema_decay) p
// grad is left as it is. All of one dtype, f32 or f64, n elements; m and v may both be bf16 instead: arithmetic is in the dtype of the
// value, p sees m and v as computed, and they are rounded to nearest even when they are stored.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct AdamW {
  static constexpr const char* kName = "adamw";
  ConstView grad;
  View value, m, v;
  View ema;                      ///< empty: none
  double grad_scale = 1.0;       ///< clip factor
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
