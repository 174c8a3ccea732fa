// A run as its directory tells it: metrics.jsonl as columns, the resolved config as text, status.json, plan.json.
// Reading forgives what a killed run leaves behind: an unterminated last line is dropped, lines that are no JSON objects are
// counted and skipped, rows that a resume undid (larger steps before a smaller one) are dropped, a later row of the same step
// adds to and replaces the earlier one's values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "report/metrics_row.h"
#include "report/planned.h"

namespace hadal::report {

inline constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

struct Run {
  std::string name;  ///< run.name, or the last part of the directory; made unique by the caller
  std::filesystem::path directory;
  std::string config_text;  ///< config.yaml, or ""
  std::string state;        ///< "state" of status.json, or ""
  PlanRead plan;            ///< of plan.json

  std::vector<std::int64_t> steps;                                  ///< increasing
  std::map<std::string, std::vector<double>, std::less<>> columns;  ///< by key, one number per step; NaN where absent
  /// Arrays ("moe.layer_1.load"), at the rows that have them.
  struct ArrayAt {
    std::size_t row;
    std::vector<float> values;
  };
  std::map<std::string, std::vector<ArrayAt>, std::less<>> arrays;

  std::int64_t num_resumes = 0;
  std::int64_t last_start = 0;      ///< the step that the last start went on from
  std::int64_t num_undone = 0;      ///< rows that a resume took back
  std::int64_t num_bad_lines = 0;   ///< neither torn nor readable
  std::int64_t num_non_finite = 0;  ///< NaN and infinite figures in the rows that count

  /// The column, or nullptr.
  const std::vector<double>* column(std::string_view key) const;
  /// Seconds of training until each row: pauses between a stop and its resume are left out.
  std::vector<double> active_seconds() const;
};

/// `path` is a run directory or a metrics.jsonl. UserError when there is none or it holds no row.
Run load_run(const std::filesystem::path& path);

/// Adds one row to the run; the rules are those above.
void add_row(Run& run, const MetricsRow& row);

}  // namespace hadal::report
