// The router's products where all is of one dtype: those of a linear layer.
#include "kernels/router_product.h"

#include "kernels/linear.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

void logits(Stream& stream, const RouterLogits& args) { linear_forward(stream, args.x, args.w, args.logits); }

void backward(Stream& stream, const RouterLogitsBackward& args) {
  linear_backward_input(stream, args.d_logits, args.w, args.d_x, 1);
  linear_backward_weight(stream, args.d_logits, args.x, args.d_w, args.add ? 1 : 0);
}

const RegisterCpu<RouterLogits> registered_logits{logits};
const RegisterCpu<RouterLogitsBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels
