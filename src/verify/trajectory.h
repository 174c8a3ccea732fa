// A short training run over a layout, seen from outside the layout: losses, every gradient of the first step, every parameter after the
// last one.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "data/sampler.h"
#include "train/step.h"
#include "verify/logical_tensors.h"

namespace hadal::verify {

struct Trajectory {
  std::vector<train::StepResult> steps;
  std::vector<train::LayerLoad> loads;  ///< of the first step
  LogicalTensors gradients;             ///< of the first step
  LogicalTensors parameters;            ///< after the last
};

/// Runs config.train.steps steps of `config` over `ranks` threads of this process (one: no threads), on the samples of `sampler`. Where
/// the router has a bias, one expert of each layer gets one so low that nobody chooses it. UserError when the layout cannot be.
void run_trajectory(const Config& config, std::int64_t ranks, const data::Sampler& sampler, Trajectory& result);

}  // namespace hadal::verify
