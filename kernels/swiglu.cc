#include "kernels/swiglu.h"

namespace hadal::kernels {

void run(Stream& stream, const SwigluForward& args) {
  HADAL_CHECK(args.gate_up.shape[0] == args.h.shape[0] && args.gate_up.shape[1] == 2 * args.h.shape[1], "gate_up {}, h {}",
              args.gate_up.shape.str(), args.h.shape.str());
  HADAL_CHECK(args.row_weight.empty() || args.row_weight.numel() == args.h.shape[0], "row_weight {}", args.row_weight.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const SwigluBackward& args) {
  HADAL_CHECK(args.gate_up.shape == args.d_gate_up.shape, "gate_up {}, d_gate_up {}", args.gate_up.shape.str(), args.d_gate_up.shape.str());
  HADAL_CHECK(args.gate_up.shape[0] == args.d_h.shape[0] && args.gate_up.shape[1] == 2 * args.d_h.shape[1], "gate_up {}, d_h {}",
              args.gate_up.shape.str(), args.d_h.shape.str());
  HADAL_CHECK_EQ(args.row_weight.empty(), args.d_row_weight.empty());
  launch(stream, args);
}

}  // namespace hadal::kernels
