// Writer of the native token file (spec/interop.md 8.6; bytes in data/token_format.h): tokens are appended as they come,
// in bounded memory, and go straight to their place in the final file.
//
// Until finish() the work lies beside the target: PATH.part (the file, without metadata), PATH.part.docs (document ends)
// and PATH.part.mask (the loss mask). finish() adds metadata and hashes, marks the file complete as the last write, and
// renames it to PATH. A file that was not finished can be continued from any point that sync() has made durable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/file.h"
#include "data/block_stream.h"
#include "data/token_format.h"

namespace hadal::data {

/// What an unfinished file holds.
struct WrittenSoFar {
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
};

class TokenFileWriter {
 public:
  /// Starts anew (an older unfinished file is dropped), or goes on after the first `kept` tokens and documents.
  /// IoError when the folder cannot be written; DamagedDataError when the unfinished file is shorter than `kept`.
  TokenFileWriter(const std::filesystem::path& path, const TokenFileInfo& info, bool with_loss_mask = false, WrittenSoFar kept = {});
  ~TokenFileWriter();

  /// Tokens of the current document; ids must be below vocab_size.
  void append(std::span<const std::int32_t> tokens);
  /// The same with a loss mask (0 or 1 a token), for writers made with one.
  void append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> loss_mask);
  /// Ends the current document, which must have a token.
  void end_document();
  WrittenSoFar written() const { return written_; }
  /// Everything appended so far is on disk when this returns.
  void sync();
  /// At least one document, all ended. PATH is there when this returns, whole.
  void finish();

  /// Removes what an unfinished file left.
  static void discard(const std::filesystem::path& path);
  /// Whether there is an unfinished file.
  static bool unfinished(const std::filesystem::path& path);

 private:
  std::vector<SkeletonAttribute> attributes() const;
  Hdf5Structure make_skeleton(std::uint64_t tokens, std::uint64_t documents, std::uint64_t blocks, std::uint64_t mask_blocks);
  void copy(const File& from, std::uint64_t from_offset, std::uint64_t to_offset, std::uint64_t bytes, Hasher* hasher);

  std::filesystem::path path_;
  std::filesystem::path skeleton_path_;
  TokenFileInfo info_;
  WrittenSoFar written_;
  std::uint64_t last_end_ = 0;
  File part_;
  File docs_;
  std::optional<File> mask_file_;
  std::uint64_t tokens_offset_ = 0;
  std::optional<BlockStream> tokens_;
  std::optional<BlockStream> mask_;
  std::vector<std::uint64_t> doc_buffer_;
  std::vector<std::byte> narrow_;
};

}  // namespace hadal::data
