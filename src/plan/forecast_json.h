// A forecast as JSON: the figures of `hadal plan --json`, and plan.json of a run directory, which `hadal report` holds against what
// was measured.
#pragma once

#include <string>

#include "plan/forecast.h"

namespace hadal::plan {

/// One object, indented. "peak_bytes" and "ranks" have an entry per pipeline rank; the keys that scripts rely on are listed in
/// spec/cli.md.
std::string forecast_json(const Forecast& forecast, const ForecastOptions& options);

}  // namespace hadal::plan
