// One optimizer step over the layout of a run: micro-batches through the pipeline, gradient reduction, clipping, AdamW (ZeRO-1), balancer.
// The host makes the micro-batches, sends them to the device, and enqueues the step, or launches it as a graph that an earlier step
// has recorded (run.cuda_graph); it waits once, at the end, for the figures.
//
// Where experts' tokens travel in a bounded room (parallel.expert_capacity), those that find none come with the figures: then nothing was
// updated on any rank, the room grows on all, and the same step is done again.
#pragma once

#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "data/sampler.h"
#include "optim/sharded_adamw.h"
#include "train/pipeline.h"
#include "train/recorded_work.h"

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
  /// All are kept by reference. `recorded`: steps are recorded and launched as graphs; one rank on a device alone.
  TrainStep(RunModel& run, optim::ShardedAdamW& optimizer, bool recorded = false);

  /// `rows`: the share of this rank's data-parallel place of the global batch of `global_rows` sequences. Parameters are current after
  /// optimizer.wait_values().
  StepResult run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input);
  /// The first half of run: gradients of the batch, summed over the ranks, and its figures but for the norm.
  StepResult gradients(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight);

  /// Of the last step, the same on every rank: every MoE layer of the model, in order.
  const std::vector<LayerLoad>& loads() const { return loads_; }

 private:
  /// What the host puts into the work of a step.
  struct Shape {
    std::int64_t rows = 0, seq = 0, global_rows = 0, micro_batch = 0;
    double mtp_weight = 0, bias_speed = 0;
    bool operator==(const Shape&) const = default;
  };

  /// The micro-batches of `rows`, on the device: those of the last step are written over where they have this shape.
  void prepare(Stream& stream, const data::Batch& rows, const Shape& shape);
  /// Enqueues forward, backward and the sums of gradients and loads over the ranks.
  void enqueue_gradients(Stream& stream);
  /// Enqueues the rest: norm, update, balancer; none of it where rows found no room.
  void enqueue_update(Stream& stream, double bias_speed);
  /// What the device has found, summed over the ranks; the host waits for it.
  StepResult read(Stream& stream, std::int64_t tokens);
  /// Whether rows of the step that was read found no room: then there is twice as much, and the step is to be done again.
  bool has_made_room();

  RunModel& run_;
  optim::ShardedAdamW& optimizer_;
  bool recorded_;
  Pipeline pipeline_;
  std::optional<Shape> shape_;  ///< of micro_batches_
  std::vector<model::MicroBatch> micro_batches_;
  Tensor counts_;               ///< I64 [MoE layers * E + 1]: the loads of those that lie here, then of all; rows that found no room
  Tensor balance_loss_;         ///< F64 [MoE layers here]
  std::optional<model::LossTable> losses_;
  ConstView norm_squared_;
  Tensor judged_norm_;          ///< F64 [1]: NaN where rows found no room
  std::int64_t overflow_ = 0;   ///< rows that found no room in the step that was read
  RecordedWork<Shape> work_;
  std::vector<LayerLoad> loads_;
};

}  // namespace hadal::train
