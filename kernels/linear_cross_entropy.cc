#include "kernels/linear_cross_entropy.h"

#include "core/copy.h"
#include "kernels/op.h"

namespace hadal::kernels {

void run(Stream& stream, const LinearCrossEntropy& args) {
  HADAL_CHECK(args.h.shape.rank() == 2 && args.w.shape.rank() == 2 && args.h.shape[1] == args.w.shape[1],
              "linear_cross_entropy h {} w {}", args.h.shape.str(), args.w.shape.str());
  const Shape per_token{args.h.shape[0]};
  HADAL_CHECK(args.targets.shape == per_token && args.targets.dtype == DType::kI32, "linear_cross_entropy targets {} {}",
              name_of(args.targets.dtype), args.targets.shape.str());
  HADAL_CHECK(args.token_loss.shape == per_token, "linear_cross_entropy token_loss {}", args.token_loss.shape.str());
  HADAL_CHECK(args.loss.dtype == DType::kF64 && args.loss.numel() == 1, "linear_cross_entropy loss {} {}",
              name_of(args.loss.dtype), args.loss.shape.str());
  HADAL_CHECK(args.loss_weight.empty() || args.loss_weight.shape == per_token, "linear_cross_entropy loss_weight {}",
              args.loss_weight.shape.str());
  HADAL_CHECK(args.prediction.empty() || (args.prediction.shape == per_token && args.prediction.dtype == DType::kI32),
              "linear_cross_entropy prediction {} {}", name_of(args.prediction.dtype), args.prediction.shape.str());
  HADAL_CHECK(args.d_h.empty() || args.d_h.shape == args.h.shape, "linear_cross_entropy d_h {}", args.d_h.shape.str());
  HADAL_CHECK(args.d_w.empty() || args.d_w.shape == args.w.shape, "linear_cross_entropy d_w {}", args.d_w.shape.str());
  const DType dtype = args.h.dtype;
  const DType sums = accumulation_dtype(dtype);
  HADAL_CHECK(args.w.dtype == dtype && args.token_loss.dtype == sums && (args.loss_weight.empty() || args.loss_weight.dtype == sums) &&
                  (args.d_h.empty() || args.d_h.dtype == dtype) && (args.d_w.empty() || args.d_w.dtype == sums),
              "linear_cross_entropy with h {}: w {}, loss_weight {}, token_loss {}, d_h {}, d_w {}", name_of(dtype), name_of(args.w.dtype),
              name_of(args.loss_weight.dtype), name_of(args.token_loss.dtype), name_of(args.d_h.dtype), name_of(args.d_w.dtype));
  if (args.h.shape[0] == 0 && !args.d_w.empty() && !args.add_to_d_w) fill_zero(stream, args.d_w);
  launch(stream, args);
}

}  // namespace hadal::kernels
