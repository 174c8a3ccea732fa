// One job per run directory: an advisory lock on `<run_dir>/run.lock`, held by rank 0 for as long as the object lives.
#pragma once

#include <filesystem>

namespace hadal::checkpoint {

class RunLock {
 public:
  /// Makes `run_dir` when absent. Error with exit code 77 that names the holder (host and process) when it is locked.
  explicit RunLock(const std::filesystem::path& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace hadal::checkpoint
