// Mixture of experts with shared experts (spec/model.md 5, appendix A):
//   y_t = shared(x_t) + sum_k weight[t,k] FFN_expert[t,k](x_t)
// The rows of all tokens, sorted by expert, run as grouped products (experts.h). Tokens reach their experts through an
// ExpertExchange; the shared experts run while they travel. Forward and backward_input also come in three parts, cut where they wait
// for tokens, so that a caller may run another micro-batch in between.
#pragma once

#include <memory>

#include "kernels/router.h"
#include "nn/feed_forward.h"
#include "nn/layer.h"
#include "nn/moe/balance.h"
#include "nn/moe/expert_exchange.h"
#include "nn/moe/experts.h"

namespace hadal::nn {

struct MoeOptions {
  std::int64_t hidden_size = 0;
  std::int64_t num_experts = 0;
  std::int64_t num_shared = 0;
  std::int64_t width = 0;  ///< of one expert
  bool has_bias = true;    ///< loss-free balancing bias (noaux_tc)
  kernels::RouterOptions router;
  BalanceWeights balance;
  double init_std = 0.02;
  DType dtype = DType::kF32;
  Device device{};

  Storage storage() const { return {dtype, device}; }
};

/// How a MoE layer lies over ranks; the default is one rank.
struct MoeLayout {
  Shard experts;                                    ///< those that lie here
  Shard width;                                      ///< what lies here of each expert's width
  std::shared_ptr<ExpertExchange> exchange;         ///< null: all experts lie here, whole
  std::shared_ptr<ExpertExchange> training_exchange;  ///< of what backward follows; null: `exchange`
  std::shared_ptr<SequenceCounts> sequence_counts;  ///< null: whole sequences lie here
};

class MoeLayer : public Layer {
 public:
  /// On one rank. Logical tensors `name`.gate.*, `name`.experts.E.*, `name`.shared_experts.*.
  MoeLayer(const std::string& name, const MoeOptions& options);
  /// `shared`: the layer of the shared experts, [T, d] -> [T, d] of the tokens here, whatever lies behind it; null where
  /// num_shared is 0.
  MoeLayer(const std::string& name, const MoeOptions& options, MoeLayout layout, std::unique_ptr<Layer> shared);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

  /// forward() in parts, tokens on their way from each to the next. x stays unchanged until the last one, with `keep` until
  /// backward is done.
  SavedPtr start_forward(Context& ctx, ConstView x, bool keep);
  void forward_experts(Context& ctx, Saved& saved);
  Tensor finish_forward(Context& ctx, Saved& saved);
  /// backward_input() in parts; d_y as x above. backward_weight() may come before the last one: it needs no token that is on its
  /// way back.
  void start_backward(Context& ctx, ConstView d_y, Saved& saved);
  void backward_experts(Context& ctx, Saved& saved);
  Tensor finish_backward(Context& ctx, Saved& saved);

  /// (token, slot) pairs of the tokens here per expert since the last reset, I64 [E]. Summed over all ranks of the global batch,
  /// they are what the balancer and the load statistics read.
  View counts() { return balance_.counts(); }
  /// Sum of this layer's balance losses since the last reset, F64 [1]: the share of the tokens here.
  View balance_loss() { return balance_.loss(); }
  void reset_statistics() { balance_.reset(); }
  /// Counts and loss move into memory that somebody else owns and keeps (so that those of all layers are one block), I64 [E] and
  /// F64 [1] on the layer's device; what they hold there counts.
  void bind_statistics(View counts, View loss) { balance_.bind(counts, loss); }
  /// b_e += speed * sign(mean - counts_e) with counts over the whole global batch (spec/model.md 6.1); not in a step whose norm (F64 [1]
  /// on the layer's device, or empty) is not finite.
  void update_bias(Stream& stream, double speed, ConstView grad_norm_squared = {});
  /// (max load - mean) / mean of the present counts; 0 when nothing was counted.
  double max_violation() const { return balance_.max_violation(); }
  const std::string& name() const { return name_; }
  const MoeOptions& options() const { return options_; }

 private:
  struct Record;

  void route(Context& ctx, ConstView x, bool training, Record& r);
  void backward_router(Context& ctx, ConstView d_weights, Record& r, View d_x);

  std::string name_;
  MoeOptions options_;
  Parameter router_;  ///< [E, d], in the accumulation dtype
  Parameter bias_;    ///< F32 [E], a buffer; only with has_bias
  Experts experts_;
  std::unique_ptr<Layer> shared_;
  std::shared_ptr<ExpertExchange> exchange_, training_exchange_;
  Balance balance_;
};

}  // namespace hadal::nn
