// Writer of the native token file (spec/interop.md 8.6; bytes in data/token_format.h): tokens are appended as they come,
// in bounded memory, and go straight to their place in the final file.
//
// Until finish() the work lies beside the target: PATH.part (the file, without metadata), PATH.part.docs (document ends)
// and PATH.part.mask (the loss mask). finish() adds metadata and hashes, marks the file complete as the last write, and
// renames it to PATH. A file that was not finished can be continued from any point that sync() has made durable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "core/file.h"
#include "data/block_stream.h"
#include "data/document_spool.h"
#include "data/token_format.h"
#include "data/token_sink.h"

namespace hadal::data {

class TokenFileWriter : public TokenSink {
 public:
  /// Starts anew (an older unfinished file is dropped), or goes on after the first `kept` tokens and documents.
  /// IoError when the folder cannot be written; DamagedDataError when the unfinished file is shorter than `kept`.
  TokenFileWriter(const std::filesystem::path& path, const TokenFileInfo& info, bool with_loss_mask = false,
                  WrittenSoFar kept = {});
  void append(std::span<const std::int32_t> tokens) override;
  /// The same with a loss mask (0 or 1 a token), for writers made with one.
  void append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> loss_mask);
  void end_document() override;
  WrittenSoFar written() const override { return {num_tokens_, docs_.count()}; }
  void sync() override;
  void finish() override;

  /// Removes what an unfinished file left.
  static void discard(const std::filesystem::path& path);

 private:
  std::vector<SkeletonAttribute> attributes() const;
  Hdf5Structure make_skeleton(std::uint64_t tokens, std::uint64_t documents, std::uint64_t blocks, std::uint64_t mask_blocks);
  void copy(const File& from, std::uint64_t from_offset, std::uint64_t to_offset, std::uint64_t bytes);

  std::filesystem::path path_;
  std::filesystem::path skeleton_path_;
  TokenFileInfo info_;
  std::uint64_t num_tokens_;
  File part_;
  DocumentSpool docs_;
  std::optional<File> mask_file_;
  std::uint64_t tokens_offset_ = 0;
  std::optional<BlockStream> tokens_;
  std::optional<BlockStream> mask_;
  std::vector<std::byte> narrow_;
};

}  // namespace hadal::data
