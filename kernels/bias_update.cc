#include "kernels/bias_update.h"

namespace hadal::kernels {

void run(Stream& stream, const BiasUpdate& args) {
  HADAL_CHECK(args.counts.numel() == args.bias.numel(), "{} counts, {} biases", args.counts.numel(), args.bias.numel());
  launch(stream, args);
}

}  // namespace hadal::kernels
