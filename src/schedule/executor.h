// Runs one rank's list of a plan: moves tensors between stages and tells the stages what to compute. It knows no schedule.
//
// Between two stages of one rank the tensor itself is handed over. Sends and receives are started where the list says so, and a
// computation waits for its own inputs alone; what was sent is freed at its kRelease.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "schedule/plan.h"
#include "schedule/simulate.h"
#include "schedule/stage_runner.h"

namespace hadal::schedule {

/// What a run took, in seconds since its start.
struct Execution {
  std::vector<Span> spans;  ///< by action of this rank's list; of a computation, from the moment its inputs were there
  double seconds = 0;       ///< until the last action was done
  double busy = 0;          ///< in computations
};

/// Runs the list of `pipeline.rank()`. Collective over `pipeline`, the group of the pipeline ranks, in their order; every rank
/// passes an equal, valid plan. Returns when every transfer of this rank is complete.
Execution execute(const Plan& plan, comm::Communicator& pipeline, StageRunner& stages);

}  // namespace hadal::schedule
