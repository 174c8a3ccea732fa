// The run's figures on disk, written by rank 0 alone: metrics.jsonl is the truth (spec/interop.md 9.2), TensorBoard event files
// stand beside it.
//
// metrics.jsonl is append-only. A run that resumes at step s appends the row {"ts", "step": s, "event": "resume"}: rows before it
// with a larger step were undone. A torn last line of a killed run is cut off when the file is opened again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/file.h"
#include "report/metrics_row.h"
#include "report/tensorboard.h"

namespace hadal::train {

class MetricsWriter {
 public:
  /// `run_dir`/metrics.jsonl and `run_dir`/tensorboard/. `resumed_step`: the step of the loaded checkpoint, if any.
  /// `config_text` (the resolved YAML) is shown in TensorBoard's text tab at a fresh start.
  MetricsWriter(const std::filesystem::path& run_dir, std::optional<std::int64_t> resumed_step, std::string_view config_text);

  /// Appends one row; "ts" (seconds since 1970) is put in front when the row has none. "step" is required.
  void write(report::MetricsRow row);
  /// Before a checkpoint is committed: everything written so far is on disk.
  void sync();
  /// NaN and infinite figures written since the start.
  std::int64_t num_non_finite() const { return num_non_finite_; }

 private:
  File file_;
  report::TensorboardWriter tensorboard_;
  std::int64_t num_non_finite_ = 0;
};

/// TensorBoard's tag of a key: "loss" is train/loss, "val_loss" val/loss, "tokens_per_s" perf/tokens_per_s, "max_vio"
/// moe/max_vio; a dotted key keeps its first part as the group. Empty for keys that are no curve (ts, step).
std::string tensorboard_tag(std::string_view key);

/// Seconds since 1970.
double wall_time();

}  // namespace hadal::train
