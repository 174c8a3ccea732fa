#include "kernels/grouped_gemm.h"

#include "core/copy.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

// x [R, in], y [R, out], offsets [E + 1], w [E, out, in] of dtype `w_dtype`.
void check(Stream& stream, const ConstView& x, const ConstView& y, const ConstView& offsets, const ConstView& w, DType w_dtype) {
  HADAL_CHECK(x.shape.rank() == 2 && y.shape.rank() == 2 && w.shape.rank() == 3 && x.shape[0] == y.shape[0] &&
                  w.shape[1] == y.shape[1] && w.shape[2] == x.shape[1] && offsets.shape == Shape({w.shape[0] + 1}),
              "grouped_gemm rows {} and {}, weights {}, offsets {}", x.shape.str(), y.shape.str(), w.shape.str(),
              offsets.shape.str());
  HADAL_CHECK(x.dtype == y.dtype && w.dtype == w_dtype && offsets.dtype == DType::kI64, "grouped_gemm {} {} {} {}",
              name_of(x.dtype), name_of(y.dtype), name_of(w.dtype), name_of(offsets.dtype));
  if (!stream.device().is_cpu()) return;
  const auto ends = offsets.span<std::int64_t>();
  HADAL_CHECK(ends.front() == 0 && ends.back() <= x.shape[0], "grouped_gemm offsets run {} .. {} over {} rows", ends.front(),
              ends.back(), x.shape[0]);
  for (std::size_t e = 1; e < ends.size(); ++e) HADAL_CHECK(ends[e - 1] <= ends[e], "grouped_gemm offsets fall at {}", e);
}

}  // namespace

void run(Stream& stream, const GroupedGemmForward& args) {
  check(stream, args.x, args.y, args.offsets, args.w, args.x.dtype);
  if (args.y.numel() > 0) launch(stream, args);
}

void run(Stream& stream, const GroupedGemmBackwardInput& args) {
  check(stream, args.d_x, args.d_y, args.offsets, args.w, args.d_x.dtype);
  if (args.d_x.numel() > 0) launch(stream, args);
}

void run(Stream& stream, const GroupedGemmBackwardWeight& args) {
  check(stream, args.x, args.d_y, args.offsets, args.d_w, accumulation_dtype(args.x.dtype));
  if (args.d_w.numel() == 0) return;
  if (args.x.shape[0] > 0) {
    launch(stream, args);
  } else if (!args.add) {
    fill_zero(stream, args.d_w);
  }
}

}  // namespace hadal::kernels
