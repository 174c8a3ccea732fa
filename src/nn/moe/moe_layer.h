// Mixture of experts with shared experts (spec/model.md 5, appendix A):
//   y_t = shared(x_t) + sum_k weight[t,k] FFN_expert[t,k](x_t)
// Rows are sorted by expert and run as one grouped GEMM. The router's weight scales the hidden row before W_down.
#pragma once

#include <memory>

#include "kernels/router.h"
#include "nn/feed_forward.h"
#include "nn/layer.h"

namespace hadal::nn {

/// Weights of the auxiliary balance losses (spec/model.md 6).
struct BalanceWeights {
  double sequence_alpha = 0;
  double expert_alpha = 0;
  double device_alpha = 0;
  double communication_alpha = 0;
  std::int64_t num_devices = 1;

  bool any() const { return sequence_alpha != 0 || expert_alpha != 0 || device_alpha != 0 || communication_alpha != 0; }
};

struct MoeOptions {
  std::int64_t hidden_size = 0;
  std::int64_t num_experts = 0;
  std::int64_t num_shared = 0;
  std::int64_t width = 0;       ///< of one expert
  bool has_bias = true;         ///< loss-free balancing bias (noaux_tc)
  kernels::RouterOptions router;
  BalanceWeights balance;
  double init_std = 0.02;
  DType dtype = DType::kF32;
};

class MoeLayer : public Layer {
 public:
  /// Logical tensors `name`.gate.*, `name`.experts.E.*, `name`.shared_experts.*.
  MoeLayer(const std::string& name, const MoeOptions& options);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

  /// (token, slot) pairs per expert since the last reset, I64 [E]: what the balancer and the load statistics read.
  View counts() { return counts_; }
  /// Sum of this layer's balance losses since the last reset, F64 [1].
  View balance_loss() { return balance_loss_; }
  void reset_statistics();
  /// b_e += speed * sign(mean - counts_e) with counts over the whole global batch (spec/model.md 6.1).
  void update_bias(double speed);
  /// (max load - mean) / mean of the present counts; 0 when nothing was counted.
  double max_violation() const;
  const std::string& name() const { return name_; }
  const MoeOptions& options() const { return options_; }

 private:
  struct Record;

  std::string name_;
  MoeOptions options_;
  Parameter router_;   ///< [E, d]
  Parameter bias_;     ///< F32 [E], a buffer; only with has_bias
  Parameter gate_up_;  ///< [E, 2I, d]
  Parameter down_;     ///< [E, d, I]
  std::unique_ptr<FeedForward> shared_;
  Tensor counts_;
  Tensor balance_loss_;
};

}  // namespace hadal::nn
