// The planned memory of ranks beside what the allocator counted in a real training step.
#pragma once

#include <vector>

#include "config/config.h"
#include "plan/rank_shape.h"

namespace hadal::test {

/// By rank, on the device that the config names: peak bytes of the second of two steps over synthetic rows, choices of experts forced.
/// On the CPU with one thread a rank; on a device of one rank alone, without what
/// stays there afterwards.
std::vector<double> measured_peaks(const Config& config, int ranks);
/// By rank. `scratch`: with what kernels take while they run.
std::vector<double> planned_peaks(const Config& config, int ranks, const MachineSection& machine, bool scratch = true);

}  // namespace hadal::test
