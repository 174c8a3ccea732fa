// The forecast that a run is held against: plan.json in its directory, for `hadal report`.
#pragma once

#include <filesystem>

#include "config/config.h"

namespace hadal::train {

/// By one rank, at the start: what `hadal plan` expects of this config on `num_ranks` ranks of `threads` threads each, on the machine
/// of the run's device. A forecast that cannot be made or written costs the comparison, not the run: a warning, and no plan.json.
void write_plan(const Config& config, int num_ranks, int threads, const std::filesystem::path& run_dir);

}  // namespace hadal::train
