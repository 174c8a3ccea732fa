// One optimizer step over the layout of a run: micro-batches through the pipeline, gradient reduction, clipping, AdamW (ZeRO-1), balancer.
// Everything is enqueued on the device; the host waits once, at the end, for the figures.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "data/sampler.h"
#include "optim/sharded_adamw.h"
#include "train/pipeline.h"

namespace hadal::train {

/// Factors of one step, from the schedules.
struct StepInput {
  double lr = 0;
  double mtp_weight = 0;
  double bias_speed = 0;
};

/// Means over the global batch.
struct StepResult {
  double loss = 0;              ///< main cross-entropy, nats per token
  std::vector<double> mtp_loss; ///< per depth
  double balance_loss = 0;      ///< sum over layers
  double grad_norm = 0;
  std::int64_t tokens = 0;      ///< of the batch
  double max_violation = 0;     ///< mean of MaxVio over MoE layers
  bool applied = true;          ///< false: not finite, the update was skipped on every rank
};

/// Load of one MoE layer over the global batch.
struct LayerLoad {
  std::int64_t layer_idx = 0;        ///< MTP modules count on after the last layer
  std::vector<std::int64_t> counts;  ///< (token, slot) pairs per expert

  /// (max - mean) / mean; 0 when nothing was counted.
  double max_violation() const;
};

class TrainStep {
 public:
  /// All are kept by reference.
  TrainStep(RunModel& run, optim::ShardedAdamW& optimizer);

  /// `rows`: the share of this rank's data-parallel place of the global batch of `global_rows` sequences. Parameters are current after
  /// optimizer.wait_values().
  StepResult run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input);
  /// The first half of run: gradients of the batch, summed over the ranks, and its figures but for the norm.
  StepResult gradients(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight);

  /// Of the last step, the same on every rank: every MoE layer of the model, in order.
  const std::vector<LayerLoad>& loads() const { return loads_; }

 private:
  /// Enqueues forward, backward and the sum of the gradients over the ranks; the losses of the micro-batches here.
  model::LossTable enqueue(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight);
  /// What the device has found, summed over the ranks; the host waits for it. Layers then have the loads of the whole batch.
  StepResult read(Stream& stream, const model::LossTable& losses, std::int64_t tokens);

  RunModel& run_;
  optim::ShardedAdamW& optimizer_;
  Pipeline pipeline_;
  Tensor counts_;        ///< I64 [MoE layers here, E]: their loads, on the device
  Tensor balance_loss_;  ///< F64 [MoE layers here]
  std::vector<LayerLoad> loads_;
};

}  // namespace hadal::train
