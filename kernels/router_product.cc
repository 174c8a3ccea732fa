#include "kernels/router_product.h"

#include "core/copy.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

void check(const char* op, const ConstView& x, const ConstView& w, const ConstView& logits) {
  HADAL_CHECK(x.shape.rank() == 2 && w.shape.rank() == 2 && w.shape[1] == x.shape[1] && logits.shape == Shape({x.shape[0], w.shape[0]}),
              "{} x {}, w {}, logits {}", op, x.shape.str(), w.shape.str(), logits.shape.str());
  const DType sums = accumulation_dtype(x.dtype);
  HADAL_CHECK(w.dtype == sums && logits.dtype == sums, "{} x {}, w {}, logits {}", op, name_of(x.dtype), name_of(w.dtype), name_of(logits.dtype));
}

}  // namespace

void run(Stream& stream, const RouterLogits& args) {
  check(args.kName, args.x, args.w, args.logits);
  if (args.logits.numel() > 0) launch(stream, args);
}

void run(Stream& stream, const RouterLogitsBackward& args) {
  check(args.kName, args.x, args.w, args.d_logits);
  HADAL_CHECK(args.d_x.shape == args.x.shape && args.d_x.dtype == args.x.dtype && args.d_w.shape == args.w.shape && args.d_w.dtype == args.w.dtype,
              "{} d_x {} {}, d_w {} {}", args.kName, name_of(args.d_x.dtype), args.d_x.shape.str(), name_of(args.d_w.dtype), args.d_w.shape.str());
  if (args.d_logits.numel() > 0) {
    launch(stream, args);
  } else if (!args.add) {
    fill_zero(stream, args.d_w);
  }
}

}  // namespace hadal::kernels
