// The step of the loss-free balancer (spec/model.md 6.1): experts with less than the mean load are preferred a little more, those with
// more a little less.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// bias_e += speed * sign(mean - counts_e), mean over the E experts; the sign is taken in integers. With grad_norm_squared, a step whose
/// norm is not finite leaves the bias as it was, as it leaves the parameters (kernels/adamw.h).
struct BiasUpdate {
  static constexpr const char* kName = "bias_update";
  ConstView counts;               ///< I64 [E], over the whole global batch
  View bias;                      ///< F32 [E]
  ConstView grad_norm_squared{};  ///< F64 [1] on the stream's device, or empty
  double speed = 0;
};

void run(Stream& stream, const BiasUpdate& args);

}  // namespace hadal::kernels
