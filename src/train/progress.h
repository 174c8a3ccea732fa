// What a person sees while a run trains, on stderr: on a terminal one line that is rewritten in place, else plain lines
// (spec/ecosystem.md 10). Rank 0 only. The fields are those of metrics.jsonl:
//
//   step  120/2000 | loss 3.1415 | mtp 3.3021 | lr 4.00e-03 | gnorm 0.81 | 14.2k tok/s | peak 61% | maxvio 0.12 | eta 4m12s
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "report/metrics_row.h"

namespace hadal::train {

enum class ProgressStyle { kNone, kPlain, kLive };

struct ProgressOptions {
  ProgressStyle style = ProgressStyle::kPlain;
  int width = 0;  ///< columns of the terminal; longer lines are cut; 0: unlimited
  bool colour = false;
  std::int64_t total_steps = 0;
};

/// Live on a terminal when no launcher is there (under mpirun stderr is a pipe), plain elsewhere. HADAL_PROGRESS=live|plain|none
/// overrides: launch/mpirun.sh says live, with COLUMNS, when its own stderr is a terminal. NO_COLOR and TERM=dumb are respected.
ProgressOptions detect_progress(std::int64_t total_steps, bool quiet);

/// The fields of one row; absent ones are left out, and those that matter least where `width` columns (0: any) are too few.
/// `eta_seconds` < 0: unknown.
std::string progress_line(const report::MetricsRow& row, std::int64_t total_steps, double eta_seconds, int width = 0);
/// "4m12s", "3h05m", "2d04h", "0.8s".
std::string duration_text(double seconds);

class Progress {
 public:
  Progress(const ProgressOptions& options, std::FILE* out);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// After every step. Live: redrawn at most ten times a second. Plain: one line when `interval_ended` and the last line is old
  /// enough (2 s at first, growing to 30 s), and at the last step.
  void update(const report::MetricsRow& row, bool interval_ended);
  /// A whole line of its own, such as a validation result; the live line is drawn again below it.
  void note(std::string_view text);
  /// Ends the live line, so that what follows starts on a new one.
  void finish();

 private:
  void draw(const std::string& line);
  double eta(std::int64_t step, double now);

  ProgressOptions options_;
  std::FILE* out_;
  std::string shown_;
  double start_ = 0.0;
  double last_drawn_ = -1e9;
  double step_time_ = 0.0;    ///< bias-free exponential mean of seconds per step: sum of weighted times ...
  double step_weight_ = 0.0;  ///< ... over sum of weights
  double last_time_ = 0.0;
  std::int64_t last_step_ = -1;
};

}  // namespace hadal::train
