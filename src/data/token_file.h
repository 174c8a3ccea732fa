// Reader of the native token file (spec/interop.md 8.6; bytes in data/token_format.h).
//
// Opening checks the structure without the HDF5 library, the completeness, the head hash and the document ends; nothing of
// the tokens is read. A 4 MiB block of tokens (and of the loss mask) is verified when it is first touched, from any thread:
// its XXH3-128 and that every id is below vocab_size; again when the file's time of change moved meanwhile. What is wrong is a
// DamagedDataError with the file's path and block.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/file.h"
#include "data/token_format.h"
#include "data/token_source.h"

namespace hadal::data {

class TokenFile : public TokenSource {
 public:
  /// UserError when the path cannot be read or is no HDF5 file; DamagedDataError when it is one, but not a sound token file.
  explicit TokenFile(const std::filesystem::path& path);

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return doc_ends_; }
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override;
  void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const override;
  bool has_loss_mask() const override { return mask_.count > 0; }
  Hash128 fingerprint() const override { return head_hash_; }
  std::string_view format() const override { return kTokenFormat; }
  std::string_view dtype_name() const override { return info_.token_bytes == 2 ? "u16" : "u32"; }
  std::uint64_t vocab_size() const override { return info_.vocab_size; }
  std::int64_t eos_token_id() const override { return info_.eos_token_id; }
  std::string tokenizer_hash() const override { return info_.tokenizer_hash; }
  const TokenFileInfo& info() const { return info_; }

  /// Reads and checks every block now (a whole pass over the file).
  void verify_all() const;

 private:
  /// One dataset that is verified block by block.
  struct Blocks {
    const char* what = "";
    std::uint64_t offset = 0;
    std::uint64_t count = 0;
    std::size_t element_bytes = 1;
    std::vector<std::uint64_t> hashes;
    std::unique_ptr<std::atomic<std::uint8_t>[]> verified;

    std::uint64_t bytes() const { return count * element_bytes; }
  };

  /// End of the metadata.
  std::uint64_t check_user_block() const;
  void read_attributes(const Hdf5Structure& structure);
  std::vector<std::uint64_t> read_u64(const Hdf5Structure& structure, const char* name, std::uint64_t count) const;
  void read_bytes(const Blocks& blocks, std::uint64_t begin, std::span<std::byte> out) const;
  void verify_block(const Blocks& blocks, std::uint64_t block) const;
  /// A file that was written to since it was opened has to prove itself again.
  void forget_when_modified() const;
  void check_ids(std::span<const std::byte> bytes, std::uint64_t first_token) const;
  [[noreturn]] void damaged(const std::string& reason) const;

  std::string name_;
  File file_;
  TokenFileInfo info_;
  std::uint64_t num_tokens_ = 0;
  Hash128 head_hash_;
  std::vector<std::uint64_t> doc_ends_;
  mutable std::atomic<std::int64_t> modified_ns_;
  Blocks tokens_;
  Blocks mask_;
};

}  // namespace hadal::data
