#include "kernels/branch_gate.h"

namespace hadal::kernels {
namespace {

void check(std::int64_t heads, const ConstView& gates, const ConstView& bias, const ConstView& logits, const ConstView& y) {
  const std::int64_t rows = gates.shape[0];
  HADAL_CHECK(heads > 0 && gates.numel() == rows * 3 * heads && bias.numel() == 3 * heads, "gates {}, bias {} for {} heads",
              gates.shape.str(), bias.shape.str(), heads);
  HADAL_CHECK(y.numel() % heads == 0 && y.shape[0] == rows, "branches {} for {} heads and gates {}", y.shape.str(), heads,
              gates.shape.str());
  HADAL_CHECK(logits.shape == gates.shape, "logits {}, gates {}", logits.shape.str(), gates.shape.str());
  const DType dtype = accumulation_dtype(y.dtype);
  HADAL_CHECK(gates.dtype == dtype && bias.dtype == dtype && (logits.dtype == y.dtype || logits.dtype == dtype),
              "gates {}, bias {}, logits {} of branches {}", name_of(gates.dtype), name_of(bias.dtype), name_of(logits.dtype), name_of(y.dtype));
}

}  // namespace

void run(Stream& stream, const BranchGateForward& args) {
  check(args.heads, args.g, args.bias, args.logits, args.y);
  for (const ConstView& o : args.o)
    HADAL_CHECK(o.shape == args.y.shape && o.dtype == args.y.dtype, "branch {}, y {}", o.shape.str(), args.y.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const BranchGateBackward& args) {
  check(args.heads, args.g, args.d_bias, args.d_logits, args.d_y);
  for (std::size_t b = 0; b < 3; ++b) {
    HADAL_CHECK(args.o[b].shape == args.d_y.shape && args.d_o[b].shape == args.d_y.shape, "branch {}: o {}, d_o {}, d_y {}", b,
                args.o[b].shape.str(), args.d_o[b].shape.str(), args.d_y.shape.str());
    HADAL_CHECK(args.o[b].dtype == args.d_y.dtype && args.d_o[b].dtype == args.d_y.dtype);
  }
  launch(stream, args);
}

}  // namespace hadal::kernels
