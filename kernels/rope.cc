#include "kernels/rope.h"

namespace hadal::kernels {

void run(Stream& stream, const Rope& args) {
  const ConstHeads& x = args.x;
  const Heads& y = args.y;
  HADAL_CHECK(x.tokens == y.tokens && x.heads == y.heads && x.width == y.width, "x [{}, {}, {}], y [{}, {}, {}]", x.tokens,
              x.heads, x.width, y.tokens, y.heads, y.width);
  HADAL_CHECK(x.width % 2 == 0, "rotated width {} is odd", x.width);
  HADAL_CHECK(args.batch > 0 && x.tokens % args.batch == 0, "{} rows in {} sequences", x.tokens, args.batch);
  HADAL_CHECK(args.cosines.shape.rank() == 2 && args.cosines.shape[1] == x.width / 2 && args.cosines.shape == args.sines.shape,
              "cosines {}, sines {} for width {}", args.cosines.shape.str(), args.sines.shape.str(), x.width);
  const DType table = accumulation_dtype(x.dtype);
  HADAL_CHECK(x.dtype == y.dtype && args.cosines.dtype == table && args.sines.dtype == table, "x {}, y {}, cosines {}, sines {}",
              name_of(x.dtype), name_of(y.dtype), name_of(args.cosines.dtype), name_of(args.sines.dtype));
  HADAL_CHECK(!args.accumulate || x.data != y.data, "an accumulating rotation reads and writes one buffer");
  HADAL_CHECK(x.data != y.data || (x.token_stride == y.token_stride && x.head_stride == y.head_stride), "in place with unlike strides");
  if (x.tokens == 0 || x.heads == 0 || x.width == 0) return;
  const std::int64_t last = args.position_start + (x.tokens / args.batch - 1) * args.position_stride;
  HADAL_CHECK(args.position_start >= 0 && last < args.cosines.shape[0], "positions {} to {} in a table of {}",
              args.position_start, last, args.cosines.shape[0]);
  launch(stream, args);
}

}  // namespace hadal::kernels
