// The load of the experts of one MoE layer: what the loss-free balancer and the statistics read, and the auxiliary balance losses
// (spec/model.md 6).
#pragma once

#include <memory>

#include "kernels/router.h"
#include "nn/layer.h"
#include "nn/moe/sequence_counts.h"

namespace hadal::nn {

/// Weights of the auxiliary balance losses.
struct BalanceWeights {
  double sequence_alpha = 0;
  double expert_alpha = 0;
  double device_alpha = 0;
  double communication_alpha = 0;
  std::int64_t num_devices = 1;

  bool by_device() const { return device_alpha != 0 || communication_alpha != 0; }
  bool any() const { return sequence_alpha != 0 || expert_alpha != 0 || by_device(); }
};

class Balance {
 public:
  /// `sequence_counts` null: whole sequences are here.
  Balance(std::int64_t num_experts, const kernels::RouterOptions& router, const BalanceWeights& weights,
          std::shared_ptr<SequenceCounts> sequence_counts, Device device);

  /// Adds the load and the loss of a micro-batch, scores [T, E], experts I32 [T, K]; returns d_scores [T, E], undefined where no
  /// loss is asked for.
  Tensor add(Context& ctx, ConstView scores, ConstView experts);

  /// I64 [E] and F64 [1], since the last reset.
  View counts() { return counts_; }
  View loss() { return loss_; }
  void reset();
  /// Both move into memory of these shapes that somebody else owns and keeps.
  void bind(View counts, View loss);
  /// bias F32 [E]: b_e += speed * sign(mean - counts_e), unless the norm is there (F64 [1]) and not finite.
  void update_bias(Stream& stream, View bias, double speed, ConstView grad_norm_squared) const;
  /// (max load - mean) / mean; 0 when nothing was counted. The host waits for it.
  double max_violation() const;

 private:
  std::int64_t num_experts_;
  kernels::RouterOptions router_;
  BalanceWeights weights_;
  std::shared_ptr<SequenceCounts> sequence_counts_;
  Tensor own_counts_, own_loss_;
  View counts_, loss_;  ///< of these, or bound
};

}  // namespace hadal::nn
