// A short training run over a layout, seen from outside the layout: losses, every gradient of the first step, every parameter and
// buffer after the last one.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "data/sampler.h"
#include "train/run_model.h"
#include "train/step.h"
#include "verify/logical_tensors.h"

namespace hadal::verify {

struct Trajectory {
  std::vector<train::StepResult> steps;
  std::vector<train::LayerLoad> loads;            ///< of the first step
  LogicalTensors gradients{Holders::kOne};        ///< of the first step
  LogicalTensors parameters{Holders::kMany};      ///< after the last, every copy of them; buffers too
};

/// What one rank does of such a run. Where the router has a bias, one expert of each layer gets one so low that nobody chooses it.
class RankRun {
 public:
  /// Collective over `world`; all are kept by reference. UserError when the layout cannot be.
  RankRun(const Config& config, comm::Communicator& world, const data::Sampler& sampler);

  train::RunModel& model() { return run_; }
  /// config.train.steps steps on the samples of the sampler. Adds this rank's part to `result`, which the ranks of a process share.
  void run(Trajectory& result);

 private:
  void collect_gradients(LogicalTensors& gradients);

  const Config& config_;
  comm::Communicator& world_;
  const data::Sampler& sampler_;
  train::RunModel run_;
  optim::ShardedAdamW optimizer_;
  train::TrainStep step_;
};

/// RankRun over `ranks` threads of this process (one: no threads).
void run_trajectory(const Config& config, std::int64_t ranks, const data::Sampler& sampler, Trajectory& result);

}  // namespace hadal::verify
