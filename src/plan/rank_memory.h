// The memory of one rank in a training step, by kind, at its peak: state that always lives, and what the schedule keeps in
// flight.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "plan/rank_parameters.h"
#include "plan/rank_shape.h"
#include "plan/stage_memory.h"
#include "schedule/plan.h"

namespace hadal::plan {

struct RankMemory {
  // Bytes that live through the step.
  std::int64_t weights = 0;  ///< buffers included
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;  ///< this rank's share (ZeRO-1): moments, master weights
  std::int64_t average = 0;    ///< this rank's share of the moving average
  std::int64_t inputs = 0;     ///< the step's batch and micro-batches, rotation tables, loads of the experts, the products' workspace
  // At the peak.
  std::int64_t activations = 0;     ///< records of all micro-batches in flight
  std::int64_t transfers = 0;       ///< tensors between stages
  std::int64_t work = 0;            ///< of the computation under way
  std::int64_t peak = 0;            ///< the sum
  int micro_batches_in_flight = 0;  ///< most records of one stage's worth at a time
};

/// Rank at `place` in a step of `plan` (its micro-batches); `stages`: by stage, those of this rank at least.
RankMemory rank_memory(const Config& config, const Layout& layout, const RankShape& shape, const parallel::Place& place,
                       const schedule::Plan& plan, const std::map<std::int64_t, StageMemory>& stages);

}  // namespace hadal::plan
