// The proof that a plan is right, before anything is launched. It knows the placement and the dependencies of the mathematics,
// and nothing of the schedules.
#pragma once

#include <string>
#include <vector>

#include "schedule/plan.h"

namespace hadal::schedule {

struct Verdict {
  std::string reason;                 ///< empty: proved; else the first thing that is wrong, with rank and action
  std::vector<int> peak_activations;  ///< by rank (peaks.h)
  std::vector<int> peak_messages;     ///< by rank (peaks.h)

  bool ok() const { return reason.empty(); }
};

/// Proves of a plan with its transfers:
///  - each stage runs each micro-batch's F, I and W (or B) exactly once, on the rank and slot of the placement;
///  - on each slot F, I and W follow the order of the micro-batches, so that a gradient's sum has one order in every schedule;
///  - F before I before W, and every input is computed before, or its receive posted before, it is consumed;
///  - every transfer that is needed is there once, to the right peer, after its tensor exists, and released once; both ends of a
///    pair of ranks list the transfers of one direction in the same order;
///  - run with started sends and posted receives, no rank waits for ever.
Verdict validate(const Plan& plan);

}  // namespace hadal::schedule
