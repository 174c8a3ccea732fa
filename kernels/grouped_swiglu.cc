#include "kernels/grouped_swiglu.h"

#include "kernels/op.h"

namespace hadal::kernels {

void run(Stream& stream, const GroupedSwigluForward& args) {
  const auto &x = args.x.shape, &w = args.w.shape, &gate_up = args.gate_up.shape, &h = args.h.shape;
  HADAL_CHECK(x.rank() == 2 && w.rank() == 3 && gate_up.rank() == 2 && h.rank() == 2 && w[2] == x[1] && gate_up[0] == x[0] && gate_up[1] == w[1] &&
                  h[0] == x[0] && w[1] == 2 * h[1] && args.offsets.shape == Shape({w[0] + 1}),
              "grouped_swiglu x {}, weights {}, gate_up {}, h {}, offsets {}", x.str(), w.str(), gate_up.str(), h.str(), args.offsets.shape.str());
  const DType dtype = args.x.dtype;
  HADAL_CHECK(args.w.dtype == dtype && args.gate_up.dtype == dtype && args.h.dtype == dtype && args.offsets.dtype == DType::kI64,
              "grouped_swiglu {} {} {} {} {}", name_of(dtype), name_of(args.w.dtype), name_of(args.gate_up.dtype), name_of(args.h.dtype),
              name_of(args.offsets.dtype));
  HADAL_CHECK(args.row_weight.empty() || (args.row_weight.numel() == x[0] && args.row_weight.dtype == accumulation_dtype(dtype)),
              "row_weight {} {} for h {} {}", name_of(args.row_weight.dtype), args.row_weight.shape.str(), name_of(dtype), h.str());
  if (args.h.numel() > 0) launch(stream, args);
}

}  // namespace hadal::kernels
