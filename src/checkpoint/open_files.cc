#include "checkpoint/open_files.h"

#include "core/error.h"

namespace hadal::checkpoint {

File open_part(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::symlink_status(path, ignored).type() != std::filesystem::file_type::regular) {
    throw DamagedDataError("{}: missing, or not a regular file", path.string());
  }
  return File::open_read(path);
}

const File& OpenFiles::at(std::int64_t file) {
  const auto found = open_.find(file);
  if (found != open_.end()) return found->second;
  if (open_.size() >= kMaxOpen) open_.clear();
  return open_.emplace(file, open_part(dir_ / files_[static_cast<std::size_t>(file)].name)).first->second;
}

}  // namespace hadal::checkpoint
