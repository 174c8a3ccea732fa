#include "kernels/cast.h"

#include "kernels/op.h"

namespace hadal::kernels {

void run(Stream& stream, const Cast& args) {
  HADAL_CHECK(args.x.numel() == args.y.numel(), "cast of {} to {}", args.x.shape.str(), args.y.shape.str());
  if (args.y.numel() > 0) launch(stream, args);
}

}  // namespace hadal::kernels
