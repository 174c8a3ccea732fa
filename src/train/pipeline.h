// Runs the micro-batches of one step through this rank's stages, as the schedule says.
#pragma once

#include <map>
#include <vector>

#include "core/stream.h"
#include "schedule/executor.h"
#include "train/run_model.h"

namespace hadal::train {

class Pipeline {
 public:
  /// Kept by reference.
  explicit Pipeline(RunModel& run) : run_(run) {}

  /// Forward and backward of all micro-batches; gradients accumulate into the parameters. Losses of the pieces here, by micro-batch.
  /// `complete` as model::Stage has it. Collective over the pipeline.
  model::LossTable train(Stream& stream, const std::vector<model::MicroBatch>& micro_batches, const model::Stage::Complete& complete);
  /// What the pieces here say of a micro-batch.
  struct Evaluation {
    model::Stage::Outcome outcome;  ///< on the device
    model::Losses losses;
  };
  /// Forward alone; the host waits for the losses.
  std::vector<Evaluation> evaluate(Stream& stream, const std::vector<model::MicroBatch>& micro_batches);

 private:
  class Runner;

  const schedule::Plan& plan(std::int64_t micro_batches, bool forward_only);

  RunModel& run_;
  std::map<std::pair<std::int64_t, bool>, schedule::Plan> plans_;  ///< by micro-batches (few: those of a batch ramp), and forward_only
};

}  // namespace hadal::train
