// Token files without structure of their own: one run of little-endian unsigned ids (spec/interop.md 8.2, 8.3).
//   datatrove / nanotron   NAME.ds (u16 or u32 ids), NAME.ds.index (u64 document ends in tokens), NAME.ds.metadata (text, its
//   first
//                          line "tokenizer|bytes per token"), optional NAME.ds.loss (one byte a token: 0 does not count)
//   llm.c                  256 x i32 header (magic, version, count of tokens), ids: magic 20240520 version 1 u16 (GPT-2),
//                          magic 20240801 version 7 u32; one document
// Neither format has hashes. Read-only.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "core/file.h"
#include "data/token_source.h"

namespace hadal::data {

class FlatTokens : public TokenSource {
 public:
  /// `path` is NAME.ds. UserError when it or its index is missing, DamagedDataError when the files contradict each other.
  static TokenSourcePtr open_datatrove(const std::filesystem::path& path);
  /// UserError when it is no such file, DamagedDataError when its size is not what the header says.
  static TokenSourcePtr open_llmc(const std::filesystem::path& path);
  /// Whether the file starts with one of llm.c's magic numbers.
  static bool is_llmc(const std::filesystem::path& path);

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return doc_ends_; }
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override;
  void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const override;
  bool has_loss_mask() const override { return mask_.has_value(); }
  /// Of the document ends, the size of the tokens and their first and last MiB.
  Hash128 fingerprint() const override { return fingerprint_; }
  std::string_view format() const override { return format_; }
  std::string_view dtype_name() const override { return token_bytes_ == 2 ? "u16" : "u32"; }

 private:
  FlatTokens(std::string_view format, File file, std::uint64_t offset, std::size_t token_bytes,
             std::vector<std::uint64_t> doc_ends, std::optional<File> mask);

  std::string_view format_;
  std::string name_;
  File file_;
  std::uint64_t offset_;
  std::size_t token_bytes_;
  std::vector<std::uint64_t> doc_ends_;
  std::optional<File> mask_;
  Hash128 fingerprint_;
};

}  // namespace hadal::data
