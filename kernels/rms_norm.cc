#include "kernels/rms_norm.h"

namespace hadal::kernels {
namespace {

void check_rows(const ConstView& x, std::int64_t stride, std::int64_t rows, std::int64_t width, const char* what) {
  const std::int64_t row = stride == 0 ? width : stride;
  HADAL_CHECK(row >= width && x.numel() >= (rows > 0 ? (rows - 1) * row + width : 0), "{}: {} rows of stride {} and width {} in {}", what,
              rows, row, width, x.shape.str());
}

/// `y` as x; the gain and the statistics in the dtype of sums.
void check_dtypes(const ConstView& x, const ConstView& y, const ConstView& gain, const ConstView& inverse_rms) {
  const DType sums = accumulation_dtype(x.dtype);
  HADAL_CHECK(y.dtype == x.dtype && gain.dtype == sums && inverse_rms.dtype == sums, "x {}, y or d_y {}, gain {}, inverse_rms {}",
              name_of(x.dtype), name_of(y.dtype), name_of(gain.dtype), name_of(inverse_rms.dtype));
}

}  // namespace

void run(Stream& stream, const RmsNormForward& args) {
  const std::int64_t width = args.gain.numel();
  const std::int64_t rows = args.inverse_rms.numel();
  HADAL_CHECK(args.y.numel() == rows * width, "y {} for {} rows of {}", args.y.shape.str(), rows, width);
  check_dtypes(args.x, args.y, args.gain, args.inverse_rms);
  check_rows(args.x, args.x_stride, rows, width, "x");
  launch(stream, args);
}

void run(Stream& stream, const RmsNormBackward& args) {
  const std::int64_t width = args.gain.numel();
  const std::int64_t rows = args.inverse_rms.numel();
  HADAL_CHECK(args.d_y.numel() == rows * width, "d_y {} for {} rows of {}", args.d_y.shape.str(), rows, width);
  HADAL_CHECK(args.d_residual.empty() || args.d_residual.numel() == rows * width, "d_residual {}", args.d_residual.shape.str());
  HADAL_CHECK_EQ(args.d_gain.numel(), width);
  check_dtypes(args.x, args.d_y, args.gain, args.inverse_rms);
  HADAL_CHECK(args.d_x.dtype == args.x.dtype && (args.d_residual.empty() || args.d_residual.dtype == args.x.dtype) &&
                  args.d_gain.dtype == args.gain.dtype,
              "x {}, d_x {}, d_gain {}", name_of(args.x.dtype), name_of(args.d_x.dtype), name_of(args.d_gain.dtype));
  check_rows(args.x, args.x_stride, rows, width, "x");
  check_rows(args.d_x, args.d_x_stride, rows, width, "d_x");
  launch(stream, args);
}

}  // namespace hadal::kernels
