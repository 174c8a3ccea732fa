#include "kernels/rms_norm.h"

namespace hadal::kernels {
namespace {

void check_rows(const ConstView& x, std::int64_t stride, std::int64_t rows, std::int64_t width, const char* what) {
  const std::int64_t row = stride == 0 ? width : stride;
  HADAL_CHECK(row >= width && x.numel() >= (rows > 0 ? (rows - 1) * row + width : 0), "{}: {} rows of stride {} and width {} in {}", what,
              rows, row, width, x.shape.str());
}

}  // namespace

void run(Stream& stream, const RmsNormForward& args) {
  const std::int64_t width = args.gain.numel();
  const std::int64_t rows = args.inverse_rms.numel();
  HADAL_CHECK(args.y.numel() == rows * width, "y {} for {} rows of {}", args.y.shape.str(), rows, width);
  HADAL_CHECK(args.x.dtype == args.y.dtype && args.gain.dtype == args.y.dtype && args.inverse_rms.dtype == args.y.dtype);
  check_rows(args.x, args.x_stride, rows, width, "x");
  launch(stream, args);
}

void run(Stream& stream, const RmsNormBackward& args) {
  const std::int64_t width = args.gain.numel();
  const std::int64_t rows = args.inverse_rms.numel();
  HADAL_CHECK(args.d_y.numel() == rows * width, "d_y {} for {} rows of {}", args.d_y.shape.str(), rows, width);
  HADAL_CHECK(args.d_residual.empty() || args.d_residual.numel() == rows * width, "d_residual {}", args.d_residual.shape.str());
  HADAL_CHECK_EQ(args.d_gain.numel(), width);
  check_rows(args.x, args.x_stride, rows, width, "x");
  check_rows(args.d_x, args.d_x_stride, rows, width, "d_x");
  launch(stream, args);
}

}  // namespace hadal::kernels
