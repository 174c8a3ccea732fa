#include "kernels/bias_update.h"

namespace hadal::kernels {

void run(Stream& stream, const BiasUpdate& args) {
  HADAL_CHECK(args.counts.numel() == args.bias.numel(), "{} counts, {} biases", args.counts.numel(), args.bias.numel());
  HADAL_CHECK(args.grad_norm_squared.empty() || (args.grad_norm_squared.numel() == 1 && args.grad_norm_squared.dtype == DType::kF64),
              "grad_norm_squared {} {}", name_of(args.grad_norm_squared.dtype), args.grad_norm_squared.numel());
  launch(stream, args);
}

}  // namespace hadal::kernels
