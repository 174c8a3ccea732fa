#include "kernels/adamw.h"

namespace hadal::kernels {

void run(Stream& stream, const AdamW& args) {
  const std::int64_t n = args.value.numel();
  HADAL_CHECK(args.grad.numel() == n && args.m.numel() == n && args.v.numel() == n, "value {}, grad {}, m {}, v {}", n, args.grad.numel(),
              args.m.numel(), args.v.numel());
  HADAL_CHECK(args.ema.empty() || args.ema.numel() == n, "ema {}", args.ema.numel());
  HADAL_CHECK(args.m.dtype == args.v.dtype && (args.m.dtype == args.value.dtype || args.m.dtype == DType::kBf16), "{} of m {}, v {}",
              name_of(args.value.dtype), name_of(args.m.dtype), name_of(args.v.dtype));
  HADAL_CHECK(args.step >= 1, "step {}", args.step);
  launch(stream, args);
}

void run(Stream& stream, const SumSquares& args) {
  HADAL_CHECK_EQ(args.result.numel(), 1);
  launch(stream, args);
}

}  // namespace hadal::kernels
