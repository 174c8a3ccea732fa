#include "checkpoint/store.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "checkpoint/together.h"
#include "comm/single.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace hadal::checkpoint {
namespace {

constexpr std::string_view kPrefix = "step-";

std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto result = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (result.ec != std::errc() || result.ptr != end || step < 0) return std::nullopt;
  return step;
}

bool is_committed(const std::filesystem::path& dir) {
  std::error_code ignored;
  return std::filesystem::exists(dir / kCommitName, ignored);
}

/// step-N.damaged, or .damaged.2 and so on when that is taken.
std::filesystem::path set_aside(const std::filesystem::path& dir) {
  std::filesystem::path target = dir.string() + ".damaged";
  for (int count = 2; std::filesystem::exists(target); ++count) target = fmt::format("{}.damaged.{}", dir.string(), count);
  std::filesystem::rename(dir, target);
  sync_directory(dir.parent_path());
  return target;
}

}  // namespace

std::vector<StepDir> list_checkpoints(const std::filesystem::path& dir) {
  std::vector<StepDir> steps;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    const std::optional<std::int64_t> step = step_of(entry.path().filename().string());
    if (step && is_committed(entry.path())) steps.push_back({*step, entry.path()});
  }
  std::ranges::sort(steps, {}, &StepDir::step);
  return steps;
}

std::filesystem::path find_checkpoint(const std::filesystem::path& path) {
  if (is_committed(path)) return path;
  for (const std::filesystem::path& dir : {path, path / "checkpoints"}) {
    const std::vector<StepDir> steps = list_checkpoints(dir);
    if (!steps.empty()) return steps.back().path;
  }
  throw Error(ExitCode::kNoCheckpoint,
              fmt::format("{}: {}; give a step directory, a checkpoints directory or a run directory", path.string(),
                          std::filesystem::exists(path) ? "no complete checkpoint in it" : "does not exist"));
}

std::optional<CheckpointReader> open_newest_valid(const std::filesystem::path& dir, comm::Communicator& world) {
  for (int damaged = 0;; ++damaged) {
    std::string newest;
    together(world, [&] {
      if (!world.is_root()) return;
      const std::vector<StepDir> steps = list_checkpoints(dir);
      if (!steps.empty()) newest = steps.back().path.string();
    });
    world.broadcast(newest, 0);
    if (newest.empty() && damaged > 0) {
      throw Error(ExitCode::kNoCheckpoint,
                  fmt::format("{}: all {} checkpoints are damaged; they were kept as step-N.damaged", dir.string(), damaged));
    }
    if (newest.empty()) return std::nullopt;
    try {
      return CheckpointReader::open(newest, world, Check::kEveryBlock);
    } catch (const DamagedDataError& error) {
      const std::string what = error.what();
      together(world, [&] {
        if (!world.is_root()) return;
        log_warning("{}", what);
        log_warning("{} is damaged and was kept aside as {}", newest, set_aside(newest).string());
      });
    }
  }
}

std::optional<CheckpointReader> open_newest_valid(const std::filesystem::path& dir) {
  comm::SingleCommunicator alone;
  return open_newest_valid(dir, alone);
}

void keep_newest(const std::filesystem::path& dir, std::int64_t keep) {
  HADAL_CHECK(keep >= 1, "keep {}", keep);
  const std::vector<StepDir> steps = list_checkpoints(dir);
  const auto count = static_cast<std::int64_t>(steps.size());
  for (std::int64_t i = 0; i + keep < count; ++i) {
    // Renamed first: a removal that is cut short must not leave something that looks committed.
    const std::filesystem::path& old = steps[static_cast<std::size_t>(i)].path;
    const std::filesystem::path doomed = old.string() + ".removing";
    std::filesystem::remove_all(doomed);
    std::filesystem::rename(old, doomed);
    std::filesystem::remove_all(doomed);
  }
}

}  // namespace hadal::checkpoint
