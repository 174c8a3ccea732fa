// The timeline of a plan as text: a row per rank, time from left to right.
//
//   rank 0 |F0F1F2F3B0--F4B1--...|  22 %
//
// Each computation is its letter and the number of its micro-batch, as wide as it takes: F forward, B backward, I input
// gradients, W weight gradients, F3&B1 an overlapped pair. Capitals run on slot 0, small letters on the other slots.
#pragma once

#include <string>

#include "schedule/simulate.h"

namespace hadal::schedule {

struct RenderOptions {
  int width = 100;      ///< columns of a line, labels included; a longer timeline loses its middle
  bool colour = false;  ///< ANSI colours by kind of computation
};

/// Rows with the idle share of each rank, then the legend; every line ends in a newline. `simulation` is that of the plan.
std::string render(const Plan& plan, const Simulation& simulation, const RenderOptions& options = {});

}  // namespace hadal::schedule
