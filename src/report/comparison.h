// What was predicted of a run against what its metrics say, of the rows since its last start (the forecast is that start's).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "report/run_data.h"

namespace hadal::report {

/// One figure. "-" where the metrics do not tell it.
struct ComparisonLine {
  std::string title;
  std::string predicted;
  std::string measured;
  std::string ratio;  ///< measured over predicted, "-" where that says nothing
};

/// Empty without a forecast (Run::plan says why).
std::vector<ComparisonLine> comparison_lines(const Run& run);
/// "predicted for 2 ranks of CPU core", or the reason why nothing was.
std::string comparison_title(const Run& run);

/// Of all runs, a table each, for a terminal; where there is no forecast, one line that says so.
std::string comparison_text(std::span<const Run> runs);

}  // namespace hadal::report
