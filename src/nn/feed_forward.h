// Dense SwiGLU feed-forward layer, also the shared experts of a MoE layer (spec/model.md 2):
//   y = W_down ( silu(W_gate x) * (W_up x) ).  Gate and up are one matrix in memory, [2I, d]: gate rows first.
// A tensor-parallel rank holds a share of the width, rows of gate and up and columns of down: y and d_x are then its part of a sum.
#pragma once

#include "nn/layer.h"
#include "nn/shard.h"

namespace hadal::nn {

class FeedForward : public Layer {
 public:
  /// Logical tensors `name`.{gate,up,down}_proj.weight; `width` is the whole layer's.
  FeedForward(const std::string& name, std::int64_t hidden_size, std::int64_t width, double init_std, Storage storage, Shard shard = {});

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

 private:
  std::int64_t hidden_size_;
  std::int64_t width_;  ///< I, of the share here
  Parameter gate_up_;   ///< [2I, d]
  Parameter down_;      ///< [d, I]
};

}  // namespace hadal::nn
