// A forecast as text for people: tables of one row per pipeline rank, the timeline, and every assumption in words.
#pragma once

#include <string>
#include <vector>

#include "plan/forecast.h"
#include "plan/search.h"

namespace hadal::plan {

/// "1.50 GiB", "12.3 MB/s"-like: three digits and a unit.
std::string bytes_text(double bytes);

/// As in YAML: "1f1b".
std::string schedule_text(ScheduleKind kind);

struct PrintOptions {
  int width = 100;  ///< of the timeline
  bool colour = false;
};

std::string describe(const Config& config, const Forecast& forecast, const ForecastOptions& options, const PrintOptions& print);
/// Best first.
std::string describe(const std::vector<Candidate>& candidates, std::int64_t num_ranks, const ForecastOptions& options);
/// What the figures rest on, one sentence a line.
std::vector<std::string> assumptions(const Config& config, const ForecastOptions& options);

}  // namespace hadal::plan
