// RMSNorm as a layer with a gain; the residual's gradient can be added in the same pass.
#pragma once

#include "nn/layer.h"

namespace hadal::nn {

/// What the norm keeps of one micro-batch.
struct RmsNormSaved {
  ConstView x;
  Tensor inverse_rms;  ///< [T]
};

class RmsNorm {
 public:
  RmsNorm(const std::string& name, std::int64_t width, double eps, Storage storage);

  /// x [T, width] -> y [T, width]. saved may be null.
  Tensor forward(Context& ctx, ConstView x, RmsNormSaved* saved);
  /// d_x = backward(d_y) + d_residual (empty: none). The gain's gradient is finished here.
  Tensor backward(Context& ctx, ConstView d_y, ConstView d_residual, const RmsNormSaved& saved);
  void collect(ParameterList& parameters) { parameters.push_back(&gain_); }

 private:
  Parameter gain_;
  double eps_;
};

}  // namespace hadal::nn
