// The files of one step directory, opened when they are first read and then kept open, a few at a time: a checkpoint may have
// more files than a process may have open. For one thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>

#include "checkpoint/manifest.h"
#include "core/file.h"

namespace hadal::checkpoint {

/// DamagedDataError when the file is missing, or a link that leads elsewhere.
File open_part(const std::filesystem::path& path);

class OpenFiles {
 public:
  /// Both outlive this object.
  OpenFiles(const std::filesystem::path& dir, std::span<const StoredFile> files) : dir_(dir), files_(files) {}

  /// The file stays open until the next call.
  const File& at(std::int64_t file);

 private:
  static constexpr std::size_t kMaxOpen = 32;

  const std::filesystem::path& dir_;
  std::span<const StoredFile> files_;
  std::map<std::int64_t, File> open_;
};

}  // namespace hadal::checkpoint
