#include "kernels/adamw.h"

namespace hadal::kernels {

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
  HADAL_CHECK(args.step >= 1, "step {}", args.step);
  if (n == 0) return;
  launch(stream, args);
}

void run(Stream& stream, const SumSquares& args) {
  HADAL_CHECK(args.result.numel() == 1 && args.result.dtype == DType::kF64, "result {} {}", name_of(args.result.dtype), args.result.numel());
  launch(stream, args);
}

}  // namespace hadal::kernels
