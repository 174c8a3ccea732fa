#include "kernels/grouped_swiglu.h"

#include "kernels/grouped_gemm.h"
#include "kernels/op.h"
#include "kernels/swiglu.h"

namespace hadal::kernels {
namespace {

void forward(Stream& stream, const GroupedSwigluForward& args) {
  const std::int64_t rows = args.offsets.span<std::int64_t>().back();
  HADAL_CHECK(rows >= 0 && rows <= args.x.shape[0], "grouped_swiglu offsets end at {} of {} rows", rows, args.x.shape[0]);
  const View gate_up = args.gate_up.rows(0, rows);
  const ConstView row_weight = args.row_weight.empty() ? args.row_weight : args.row_weight.rows(0, rows);
  run(stream, GroupedGemmForward{.x = args.x.rows(0, rows), .offsets = args.offsets, .w = args.w, .y = gate_up});
  run(stream, SwigluForward{.gate_up = gate_up, .row_weight = row_weight, .h = args.h.rows(0, rows)});
}

const RegisterCpu<GroupedSwigluForward> registered{forward};

}  // namespace
}  // namespace hadal::kernels
