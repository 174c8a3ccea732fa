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

  /// Forward and backward of all micro-batches; gradients accumulate into the parameters. Losses of the pieces here. `complete` as
  /// model::Stage has it. Collective over the pipeline.
  model::Losses train(Stream& stream, const std::vector<model::MicroBatch>& micro_batches, const model::Stage::Complete& complete);
  /// Forward alone; what the pieces here say of each micro-batch.
  std::vector<model::Stage::Outcome> evaluate(Stream& stream, const std::vector<model::MicroBatch>& micro_batches);

 private:
  class Runner;

  const schedule::Plan& plan(std::int64_t micro_batches, bool forward_only);

  RunModel& run_;
  std::map<std::pair<std::int64_t, bool>, schedule::Plan> plans_;  ///< by micro-batches (few: those of a batch ramp), and forward_only
};

}  // namespace hadal::train
