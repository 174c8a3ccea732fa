// One optimizer step of a data-parallel run: micro-batches, gradient reduction, clipping, AdamW (ZeRO-1), balancer.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "data/sampler.h"
#include "model/model.h"
#include "optim/sharded_adamw.h"

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

class TrainStep {
 public:
  /// All are kept by reference.
  TrainStep(model::Model& model, optim::ShardedAdamW& optimizer, comm::Communicator& world);

  /// `rows`: this rank's share of the global batch of `global_rows` sequences. Afterwards the MoE layers' counts hold the whole
  /// batch's load until the next call; parameters are current after optimizer.wait_values().
  StepResult run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input);

 private:
  void reduce(StepResult& result);

  model::Model& model_;
  optim::ShardedAdamW& optimizer_;
  comm::Communicator& world_;
  std::vector<nn::MoeLayer*> moe_layers_;
};

}  // namespace hadal::train
