// Appends bytes to a region of a file in blocks of 4 MiB, hashing each: bounded memory, and it can go on after a kill.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/file.h"

namespace hadal::data {

class BlockStream {
 public:
  /// Bytes go to `file` from `offset` on. With `bytes_kept` > 0 the first bytes are there already: they are read and hashed.
  BlockStream(File& file, std::uint64_t offset, std::uint64_t bytes_kept);

  void append(std::span<const std::byte> bytes);
  /// Writes the last, partial block too; appending may go on.
  void flush();
  std::uint64_t bytes() const { return bytes_; }
  /// XXH3-128 (low, high) of every block, the last one included. After flush().
  std::vector<std::uint64_t> hashes() const;

 private:
  File* file_;
  std::uint64_t offset_;
  std::uint64_t bytes_ = 0;
  std::vector<std::byte> block_;  ///< the bytes since the last full block
  std::vector<std::uint64_t> hashes_;
};

}  // namespace hadal::data
