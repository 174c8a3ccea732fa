// The fastest layouts of a config on a number of ranks that fit their memory: every product of axes, schedule and micro-batch
// that make_layout accepts, in the order of a bound that no schedule can beat, until the bound says that nothing better can come.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/forecast.h"

namespace hadal::plan {

struct Candidate {
  ParallelSection parallel;
  std::int64_t micro_batch = 1;
  double step_s = 0;
  double tokens_per_s_per_rank = 0;
  double bubble_share = 0;
  std::int64_t peak_bytes = 0;
};

struct Try {
  ParallelSection parallel;
  std::int64_t micro_batch = 1;

  /// Of `config` the section parallel and the micro-batch are replaced; hand-written stages are dropped.
  Config applied_to(const Config& config) const;
};
/// Everything that the search looks at, layouts that make_layout refuses among them.
std::vector<Try> layouts_to_try(const Config& config, std::int64_t num_ranks, const MachineSection& machine);

/// At most `count`, best first; empty when nothing fits.
std::vector<Candidate> search(const Config& config, std::int64_t num_ranks, const ForecastOptions& options, std::size_t count);

/// Seconds that a step of this layout takes at least: its computations and what they cannot hide, evenly over the pipeline ranks.
double least_step_s(const Config& config, const Layout& layout, const ForecastOptions& options);

}  // namespace hadal::plan
