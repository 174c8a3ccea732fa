#include "kernels/swiglu.h"

namespace hadal::kernels {
namespace {

/// One weight (or its gradient) for each row of h, or none.
void check_row_weight(const ConstView& weight, const ConstView& h) {
  HADAL_CHECK(weight.empty() || (weight.numel() == h.shape[0] && weight.dtype == accumulation_dtype(h.dtype)), "row_weight {} {} for h {} {}",
              name_of(weight.dtype), weight.shape.str(), name_of(h.dtype), h.shape.str());
}

}  // namespace

void run(Stream& stream, const SwigluForward& args) {
  HADAL_CHECK(args.gate_up.shape[0] == args.h.shape[0] && args.gate_up.shape[1] == 2 * args.h.shape[1], "gate_up {}, h {}",
              args.gate_up.shape.str(), args.h.shape.str());
  check_row_weight(args.row_weight, args.h);
  HADAL_CHECK(args.gate_up.dtype == args.h.dtype, "gate_up {}, h {}", name_of(args.gate_up.dtype), name_of(args.h.dtype));
  launch(stream, args);
}

void run(Stream& stream, const SwigluBackward& args) {
  HADAL_CHECK(args.gate_up.shape == args.d_gate_up.shape, "gate_up {}, d_gate_up {}", args.gate_up.shape.str(), args.d_gate_up.shape.str());
  HADAL_CHECK(args.gate_up.shape[0] == args.d_h.shape[0] && args.gate_up.shape[1] == 2 * args.d_h.shape[1], "gate_up {}, d_h {}",
              args.gate_up.shape.str(), args.d_h.shape.str());
  check_row_weight(args.row_weight, args.d_h);
  HADAL_CHECK_EQ(args.row_weight.empty(), args.d_row_weight.empty());
  check_row_weight(args.d_row_weight, args.d_h);
  HADAL_CHECK(args.gate_up.dtype == args.d_h.dtype && args.d_gate_up.dtype == args.d_h.dtype, "gate_up {}, d_h {}, d_gate_up {}",
              name_of(args.gate_up.dtype), name_of(args.d_h.dtype), name_of(args.d_gate_up.dtype));
  launch(stream, args);
}

}  // namespace hadal::kernels
