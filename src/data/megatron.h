// Megatron's indexed dataset (spec/interop.md 8.1): PREFIX.idx and PREFIX.bin.
//   idx: "MMIDIDX\0\0" | u64 version 1 | u8 dtype code | u64 n_seq | u64 n_doc | i32 length[n_seq] | i64 byte_offset[n_seq]
//        | i64 doc_index[n_doc] (boundaries: first 0, last n_seq)
//   bin: tokens, packed, little-endian
// Codes: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16 (6 and 7 are floating point: refused).
#pragma once

#include <filesystem>
#include <vector>

#include "core/file.h"
#include "data/document_spool.h"
#include "data/token_sink.h"
#include "data/token_source.h"

namespace hadal::data {

class MegatronSource : public TokenSource {
 public:
  /// `prefix` with or without .idx or .bin. UserError when a file is missing or of another kind, DamagedDataError when the
  /// index contradicts itself or the tokens. Sequences must lie in the file in their order, as Megatron's own tools write them.
  explicit MegatronSource(const std::filesystem::path& prefix);

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return doc_ends_; }
  /// The format has no hashes; ids are checked to lie in [0, 2^31).
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override;
  /// Of the index, the size of the tokens and their first and last MiB.
  Hash128 fingerprint() const override { return fingerprint_; }
  std::string_view format() const override { return "megatron"; }
  std::string_view dtype_name() const override;

  /// Whether `path`, with or without a suffix, names such a pair.
  static bool exists(const std::filesystem::path& path);

 private:
  void read_index(const File& index);

  std::string name_;
  File bin_;
  int code_ = 0;
  std::size_t token_bytes_ = 0;
  std::vector<std::uint64_t> doc_ends_;
  Hash128 fingerprint_;
};

/// Writes PREFIX.bin and PREFIX.idx, one sequence a document; u16 when vocab_size < 65500, else i32, as Megatron does.
class MegatronWriter : public TokenSink {
 public:
  /// Starts anew, or goes on after the first `kept` tokens and documents of PREFIX.bin.part and PREFIX.idx.part.
  MegatronWriter(const std::filesystem::path& prefix, std::uint64_t vocab_size, WrittenSoFar kept = {});

  void append(std::span<const std::int32_t> tokens) override;
  void end_document() override;
  WrittenSoFar written() const override { return {num_tokens_, docs_.count()}; }
  void sync() override;
  void finish() override;

  /// Removes what an unfinished pair left.
  static void discard(const std::filesystem::path& prefix);

 private:
  void flush();

  std::filesystem::path prefix_;
  std::uint64_t vocab_size_;
  std::size_t token_bytes_;
  std::uint64_t num_tokens_;
  File bin_;
  DocumentSpool docs_;
  std::vector<std::byte> buffer_;
};

}  // namespace hadal::data
