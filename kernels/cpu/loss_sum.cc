#include "kernels/loss_sum.h"

#include "kernels/dispatch.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

void loss_sum(Stream&, const LossSum& args) {
  visit_float(args.token_loss.dtype, [&]<class T>() {
    double loss = 0;
    for (std::int64_t t = 0; t < args.token_loss.numel(); ++t) {
      const double weight = args.loss_weight.empty() ? 1.0 : static_cast<double>(args.loss_weight.as<T>()[t]);
      loss += weight * static_cast<double>(args.token_loss.as<T>()[t]);
    }
    *args.loss.as<double>() = loss;
  });
}

const RegisterCpu<LossSum> registered{loss_sum};

}  // namespace
}  // namespace hadal::kernels
