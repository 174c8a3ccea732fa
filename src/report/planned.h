// What was predicted of a run at its start: plan.json in its directory, written by the trainer (the JSON of `hadal plan`).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace hadal::report {

struct Planned {
  std::string machine;
  std::int64_t num_ranks = 0;
  double memory_bytes = 0;  ///< of the rank that has most
  double step_ms = 0;
  double tokens_per_s = 0;  ///< of all ranks
  double waited_share = 0;  ///< of a step, at the mean rank
};

/// Either the figures or, in one line, why there are none.
struct PlanRead {
  std::optional<Planned> figures;
  std::string problem;
};

/// Never throws for what the file holds, or because it is not there.
PlanRead read_plan(const std::filesystem::path& run_dir);

}  // namespace hadal::report
