// What a plan costs: an event simulation with given durations. Every computation of a rank starts when the one before it has
// ended and its inputs have arrived; transfers take their time beside the computations and never queue.
#pragma once

#include <vector>

#include "schedule/plan.h"

namespace hadal::schedule {

/// In one unit of time, whichever.
struct StageTimes {
  double forward = 1;
  double input = 1;   ///< I
  double weight = 1;  ///< W; B = I + W
};

struct Durations {
  std::vector<StageTimes> stages{StageTimes{}};  ///< by stage, or one entry for all
  double pair_factor = 1;                        ///< F&B = pair_factor (F + B): what overlap saves
  double transfer = 0;                           ///< from the end of a computation until a peer has its result
};

struct Span {
  double start = 0;
  double end = 0;
};

struct Simulation {
  std::vector<std::vector<Span>> spans;  ///< by rank and action; a transfer's is empty, where the rank comes past it
  double makespan = 0;                   ///< from the first start to the last end over all ranks
  std::vector<double> busy;              ///< by rank: computing
  std::vector<double> idle_inside;       ///< by rank: waiting between its own first start and last end
  std::vector<int> peak_activations;     ///< by rank (peaks.h)

  /// Idle time of a rank in one step.
  double bubble(int rank) const { return makespan - busy[static_cast<std::size_t>(rank)]; }
  /// Idle share of all ranks' time in one step.
  double bubble_share() const;
};

/// `plan` must be valid (validate.h); transfers in its lists take no part: a message arrives `transfer` after its producer's end.
Simulation simulate(const Plan& plan, const Durations& durations);

/// Duration of one computation.
double duration_of(const Action& action, const Durations& durations);

}  // namespace hadal::schedule
