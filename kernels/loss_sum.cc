#include "kernels/loss_sum.h"

#include "kernels/op.h"

namespace hadal::kernels {

void run(Stream& stream, const LossSum& args) {
  HADAL_CHECK(args.loss.dtype == DType::kF64 && args.loss.numel() == 1, "loss {} {}", name_of(args.loss.dtype), args.loss.shape.str());
  HADAL_CHECK(args.loss_weight.empty() || (args.loss_weight.numel() == args.token_loss.numel() && args.loss_weight.dtype == args.token_loss.dtype),
              "token_loss {} {}, loss_weight {} {}", name_of(args.token_loss.dtype), args.token_loss.shape.str(), name_of(args.loss_weight.dtype),
              args.loss_weight.shape.str());
  launch(stream, args);
}

}  // namespace hadal::kernels
