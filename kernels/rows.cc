#include "kernels/rows.h"

namespace hadal::kernels {

void run(Stream& stream, const GatherRows& args) {
  HADAL_CHECK(args.y.shape[0] == args.index.numel() && args.y.shape[1] == args.x.shape[1] && args.x.dtype == args.y.dtype,
              "x {}, index {}, y {}", args.x.shape.str(), args.index.shape.str(), args.y.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const SpreadRows& args) {
  HADAL_CHECK(args.index.shape.rank() == 2 && args.x.shape[0] == args.index.shape[0] && args.y.shape[1] == args.x.shape[1] &&
                  args.x.dtype == args.y.dtype,
              "x {}, index {}, y {}", args.x.shape.str(), args.index.shape.str(), args.y.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const CombineRows& args) {
  HADAL_CHECK(args.y.shape[0] == args.index.shape[0] && args.y.shape[1] == args.x.shape[1] && args.x.dtype == args.y.dtype,
              "x {}, index {}, y {}", args.x.shape.str(), args.index.shape.str(), args.y.shape.str());
  HADAL_CHECK(args.base.empty() || (args.base.shape == args.y.shape && args.base.dtype == args.y.dtype), "base {}, y {}",
              args.base.shape.str(), args.y.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const ScatterAddRows& args) {
  HADAL_CHECK(args.d_y.shape[0] == args.index.numel() && args.d_y.shape[1] == args.d_x.shape[1] &&
                  args.d_x.dtype == accumulation_dtype(args.d_y.dtype),
              "d_y {} of {}, index {}, d_x {} of {}", args.d_y.shape.str(), name_of(args.d_y.dtype), args.index.shape.str(),
              args.d_x.shape.str(), name_of(args.d_x.dtype));
  launch(stream, args);
}

void run(Stream& stream, const Add& args) {
  HADAL_CHECK(args.a.numel() == args.y.numel() && args.b.numel() == args.y.numel(), "a {}, b {}, y {}", args.a.shape.str(),
              args.b.shape.str(), args.y.shape.str());
  HADAL_CHECK(args.a.dtype == args.y.dtype && args.b.dtype == args.y.dtype, "a {}, b {}, y {}", name_of(args.a.dtype), name_of(args.b.dtype),
              name_of(args.y.dtype));
  launch(stream, args);
}

}  // namespace hadal::kernels
