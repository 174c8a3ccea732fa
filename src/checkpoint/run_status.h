// `<run_dir>/status.json` {state, step, checkpoint, exit_code}: what job scripts read when they cannot see the exit code.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace hadal::checkpoint {

struct RunStatus {
  std::string state = "running";  ///< running, done, stopped, failed
  std::int64_t step = 0;
  std::string checkpoint;  ///< newest committed step directory, relative to the run directory; empty: none
  int exit_code = 0;
};

/// Replaced by rename: a reader sees the old or the new text.
void write_run_status(const std::filesystem::path& run_dir, const RunStatus& status);

}  // namespace hadal::checkpoint
