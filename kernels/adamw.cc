#include "kernels/adamw.h"

#include <cmath>

namespace hadal::kernels {

Tensor adamw_rates(double lr, double beta1, double beta2, std::int64_t t) {
  HADAL_CHECK(t >= 1, "step {}", t);
  Tensor rates = Tensor::empty({3}, DType::kF64);
  double* const r = rates.as<double>();
  r[0] = lr;
  r[1] = 1.0 - std::pow(beta1, static_cast<double>(t));
  r[2] = 1.0 - std::pow(beta2, static_cast<double>(t));
  return rates;
}

void run(Stream& stream, const AdamW& args) {
  const std::int64_t n = args.value.numel();
  HADAL_CHECK(args.grad.numel() == n && args.m.numel() == n && args.v.numel() == n, "value {}, grad {}, m {}, v {}", n, args.grad.numel(),
              args.m.numel(), args.v.numel());
  HADAL_CHECK(args.ema.empty() || args.ema.numel() == n, "ema {}", args.ema.numel());
  HADAL_CHECK(args.working.empty() || (args.working.numel() == n && args.working.dtype == DType::kBf16), "working {} {}",
              name_of(args.working.dtype), args.working.numel());
  HADAL_CHECK(args.grad_norm_squared.empty() || (args.grad_norm_squared.numel() == 1 && args.grad_norm_squared.dtype == DType::kF64),
              "grad_norm_squared {} {}", name_of(args.grad_norm_squared.dtype), args.grad_norm_squared.numel());
  HADAL_CHECK(args.clip_norm >= 0, "clip_norm {}", args.clip_norm);
  HADAL_CHECK(args.grad.dtype == args.value.dtype && (args.ema.empty() || args.ema.dtype == args.value.dtype), "value {}, grad {}, ema {}",
              name_of(args.value.dtype), name_of(args.grad.dtype), name_of(args.ema.dtype));
  HADAL_CHECK(args.m.dtype == args.v.dtype && (args.m.dtype == args.value.dtype || args.m.dtype == DType::kBf16), "{} of m {}, v {}",
              name_of(args.value.dtype), name_of(args.m.dtype), name_of(args.v.dtype));
  HADAL_CHECK(args.rates.numel() == 3 && args.rates.dtype == DType::kF64, "rates {} {}", name_of(args.rates.dtype), args.rates.numel());
  if (n == 0) return;
  launch(stream, args);
}

void run(Stream& stream, const SumSquares& args) {
  HADAL_CHECK(args.result.numel() == 1 && args.result.dtype == DType::kF64, "result {} {}", name_of(args.result.dtype), args.result.numel());
  launch(stream, args);
}

}  // namespace hadal::kernels
