// Bytes of a text file, plain, gzip or zstd (told apart by their first bytes), front to back in bounded memory.
// Concatenated gzip members and zstd frames are one stream. zstd windows up to 2 GiB (--long=31) are accepted; such a window
// is memory on top.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace hadal::data_tools {

class TextStream {
 public:
  TextStream() = default;
  virtual ~TextStream() = default;
  TextStream(const TextStream&) = delete;
  TextStream& operator=(const TextStream&) = delete;

  /// Fills `out` from the front; fewer bytes than its size only at the end of the text. DamagedDataError naming the file and
  /// the place in it when compressed bytes are damaged or cut off.
  virtual std::size_t read(std::span<char> out) = 0;
  /// Bytes of the file on disk consumed so far, for progress.
  virtual std::uint64_t file_position() const = 0;
};

/// UserError when the file cannot be read.
std::unique_ptr<TextStream> open_text(const std::filesystem::path& path);

}  // namespace hadal::data_tools
