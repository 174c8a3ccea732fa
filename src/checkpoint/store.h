// The checkpoints of a run directory: which there are, the newest usable one, and which may go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "checkpoint/checkpoint_reader.h"
#include "comm/communicator.h"

namespace hadal::checkpoint {

struct StepDir {
  std::int64_t step = 0;
  std::filesystem::path path;
};

/// Committed ones in `dir` (names step-N with a COMMIT file), ascending. Empty when `dir` does not exist.
std::vector<StepDir> list_checkpoints(const std::filesystem::path& dir);

/// CKPT of the command line (spec/cli.md): a step directory, a checkpoints directory or a run directory; the newest committed
/// step is taken. Error with exit code 66 when there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

/// Opens the newest checkpoint of `dir` whose every byte is as committed. A damaged one is named on stderr and renamed to
/// step-N.damaged; then the next older one is tried. Nothing when none was ever committed; Error with exit code 66 when all that
/// there were are damaged. Hold the run lock. With several ranks: collective, each verifies its share; rank 0 looks and renames.
std::optional<CheckpointReader> open_newest_valid(const std::filesystem::path& dir);
std::optional<CheckpointReader> open_newest_valid(const std::filesystem::path& dir, comm::Communicator& world);

/// Removes all but the newest `keep` committed checkpoints (keep >= 1). Call after commit(): the newer ones were read back.
void keep_newest(const std::filesystem::path& dir, std::int64_t keep);

}  // namespace hadal::checkpoint
