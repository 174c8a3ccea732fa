// The few figures that say how a run went, and their table on stdout.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "report/run_data.h"

namespace hadal::report {

/// Figures of a run; NaN where the metrics do not tell.
struct Summary {
  std::int64_t last_step = 0;
  double tokens = kMissing;
  double seconds = kMissing;        ///< of training
  double loss = kMissing;           ///< train loss, mean over the last 5 % of the steps
  double mtp_loss = kMissing;       ///< likewise
  double best_val_loss = kMissing;  ///< smallest
  double val_loss = kMissing;       ///< last
  double bits_per_byte = kMissing;  ///< last
  double entropy_share = kMissing;  ///< last validation loss over the unigram entropy of the validation tokens
  double tokens_per_s = kMissing;   ///< median
  double peak_share = kMissing;     ///< median
  double max_vio = kMissing;        ///< mean over the last 5 % of the steps
  double memory_bytes = kMissing;   ///< largest
};

Summary summarize(const Run& run);

/// One line of a summary table: what it is and the text of each run; "-" where unknown.
struct SummaryLine {
  std::string title;
  std::vector<std::string> cells;
};
std::vector<SummaryLine> summary_lines(std::span<const Run> runs);

/// Aligned columns for a terminal, one run a column.
std::string summary_text(std::span<const Run> runs);

/// Exponential mean of the finite values, weight of the past `keep` per value, unbiased at the start; NaN where there is none
/// yet.
std::vector<double> smoothed(std::span<const double> values, double keep);

}  // namespace hadal::report
