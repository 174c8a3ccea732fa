// A linear layer without bias, y = x w^T, over one Parameter. As a Layer it stands alone; attention and the other composed
// layers call its three products directly on buffers of their own.
#pragma once

#include <string>

#include "nn/layer.h"

namespace hadal::nn {

class Linear : public Layer {
 public:
  /// Weight [out, in] named `name` ("....q_a_proj.weight"), Normal(0, init_std), decays.
  Linear(std::string name, std::int64_t out, std::int64_t in, double init_std, Storage storage);
  explicit Linear(Parameter weight);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override { parameters.push_back(&weight_); }

  /// y = x w^T. x [T, in] -> [T, out].
  Tensor apply(Stream& stream, ConstView x) const;
  void apply(Stream& stream, ConstView x, View y) const;
  /// d_x = d_y w + beta d_x. d_y [T, out] -> [T, in].
  Tensor apply_transposed(Stream& stream, ConstView d_y) const;
  void apply_transposed(Stream& stream, ConstView d_y, View d_x, double beta = 0) const;
  /// d_w += d_y^T x.
  void accumulate(Stream& stream, ConstView d_y, ConstView x);

  Parameter& weight() { return weight_; }
  const Parameter& weight() const { return weight_; }
  std::int64_t in() const { return weight_.shape()[1]; }
  std::int64_t out() const { return weight_.shape()[0]; }

 private:
  Parameter weight_;
};

}  // namespace hadal::nn
