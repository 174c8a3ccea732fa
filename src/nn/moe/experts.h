// The routed experts that lie here, or a share of each one's width: SwiGLU layers over rows that are sorted by expert, as grouped
// products. The router's weight scales the hidden row before W_down:
//   y_r = W_down (w_r silu(W_gate x_r) * (W_up x_r))
// With a share of the width, y_r and d_x_r are this share's part of a sum; d_w_r too.
#pragma once

#include <string>

#include "nn/layer.h"
#include "nn/shard.h"

namespace hadal::nn {

struct ExpertsOptions {
  std::int64_t hidden_size = 0;
  std::int64_t num_experts = 0;  ///< of the layer
  std::int64_t width = 0;        ///< of one expert
  Shard experts;                 ///< those that lie here
  Shard width_share;             ///< what lies here of each one's width
  double init_std = 0.02;
  Storage storage;
};

/// One micro-batch. Shape legend: R rows, E' experts here, I width of each here.
struct ExpertsSaved {
  Tensor rows;     ///< [R, d]
  Tensor gate_up;  ///< [R, 2I]; its gradient after backward_input
  Tensor h;        ///< [R, I], weighted
  Tensor d_y;      ///< [R, d]
};

class Experts {
 public:
  /// Logical tensors `name`.E.{gate,up,down}_proj.weight.
  Experts(const std::string& name, const ExpertsOptions& options);

  std::int64_t count() const { return down_.shape()[0]; }
  /// rows [R, d], offsets I64 [E' + 1], row_weight [R] -> [R, d]. Fills `saved`.
  Tensor forward(Stream& stream, Tensor rows, ConstView offsets, ConstView row_weight, ExpertsSaved& saved);

  struct InputGradients {
    Tensor d_rows;        ///< [R, d]
    Tensor d_row_weight;  ///< [R]
  };
  InputGradients backward_input(Stream& stream, Tensor d_y, ConstView offsets, ConstView row_weight, ExpertsSaved& saved);
  void backward_weight(Stream& stream, ConstView offsets, ExpertsSaved& saved);
  void collect(ParameterList& parameters);

 private:
  Parameter gate_up_;  ///< [E', 2I, d]: of each expert gate rows first
  Parameter down_;     ///< [E', d, I]
};

}  // namespace hadal::nn
