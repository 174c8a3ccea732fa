// The time of a training step: the schedule with each stage's own durations, then what stands around it.
#pragma once

#include <vector>

#include "plan/layer_time.h"
#include "plan/rank_shape.h"
#include "schedule/plan.h"
#include "schedule/simulate.h"

namespace hadal::plan {

/// Seconds.
struct StepTime {
  schedule::Durations durations;  ///< by stage
  schedule::Simulation simulation;
  double pipeline = 0;       ///< first forward to last backward
  double bubble_share = 0;   ///< of all ranks' time in it
  double exposed_share = 0;  ///< of it, transfers that nothing hides, at the mean rank
  double gradients = 0;      ///< their reduction, what stands out behind the last backward pass
  double optimizer = 0;      ///< zeroing, norm, update
  double values = 0;         ///< all-gather of the new weights
  double total() const { return pipeline + gradients + optimizer + values; }
  /// Of the step, what the mean rank waits for others: bubble, transfers that nothing hides, sums of gradients, gathered weights.
  double waited_share() const { return ((bubble_share + exposed_share) * pipeline + gradients + values) / total(); }
};

/// Of the pipeline rank that has most.
struct StateTraffic {
  double gradient_bytes = 0;    ///< sent in the reduction
  double value_bytes = 0;       ///< sent in the all-gather
  double gradient_memory = 0;   ///< bytes of gradients
  double optimizer_memory = 0;  ///< bytes of its share of the optimizer
};

/// What the schedule is simulated with.
struct StageDurations {
  schedule::Durations durations;
  double compute = 0;  ///< of it, computations: one micro-batch on all stages
};
StageDurations stage_durations(const Layout& layout, const RankShape& shape, const MachineSection& machine);

StepTime step_time(const Config& config, const Layout& layout, const RankShape& shape, const MachineSection& machine,
                   const schedule::Plan& plan, const StateTraffic& state);

}  // namespace hadal::plan
