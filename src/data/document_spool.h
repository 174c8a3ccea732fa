// Document ends on their way to a token file: appended to a side file, so that memory stays bounded and a killed build goes on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/file.h"

namespace hadal::data {

/// What an unfinished token file holds.
struct WrittenSoFar {
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
};

class DocumentSpool {
 public:
  /// Keeps the first kept.documents ends of the file at `path`; DamagedDataError when it has fewer or they do not fit `kept`.
  DocumentSpool(const std::filesystem::path& path, WrittenSoFar kept);

  std::uint64_t count() const { return count_; }
  std::uint64_t last_end() const { return last_end_; }
  /// `end` > last_end().
  void add(std::uint64_t end);
  void sync();
  /// Calls visit(ends) with spans of consecutive document ends, in order. After sync().
  template <class Visit>
  void each(Visit&& visit) const {
    std::vector<std::uint64_t> ends;
    for (std::uint64_t done = 0; done < count_; done += ends.size()) {
      ends.resize(std::min<std::uint64_t>(kChunk, count_ - done));
      file_.read_at(done * 8, std::as_writable_bytes(std::span(ends)));
      visit(std::span<const std::uint64_t>(ends));
    }
  }

 private:
  static constexpr std::uint64_t kChunk = 1 << 16;

  File file_;
  std::uint64_t count_ = 0;
  std::uint64_t last_end_ = 0;
  std::vector<std::uint64_t> buffer_;
};

}  // namespace hadal::data
