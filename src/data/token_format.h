// The token file's format (spec/interop.md 8.6): names, block size, what the hashes cover, and the user block.
//
//   user block  512 bytes in front of the HDF5 superblock: "HADALTOK", u32 version 1, u32 0, u64 metadata end,
//               u64 file bytes, XXH3-128 (low, high) of bytes [512, metadata end), zeros
//   metadata    HDF5's own
//   tokens, doc_ends, block_hash [, loss_mask, loss_mask_hash]   from the metadata's end to the end of the file, no gaps
//
// A file without a user block (superblock at byte 0: written by other software) is read too; there the metadata has
// head_hash alone. head_hash = XXH3-128, as 32 hex digits, of
//   for each root attribute but head_hash and complete, ordered by name: name, 0, the value as text, 0
//   the bytes of /doc_ends, then those of /block_hash, then those of /loss_mask_hash if there is one.
// block_hash and loss_mask_hash: (low, high) of the XXH3-128 of each 4 MiB block of /tokens and of /loss_mask.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/hash.h"
#include "data/hdf5_skeleton.h"
#include "data/hdf5_structure.h"

namespace hadal::data {

inline constexpr std::uint64_t kTokenBlockBytes = std::uint64_t{4} << 20;
inline constexpr std::string_view kUserBlockMagic{"HADALTOK"};
inline constexpr const char* kTokenFormat = "hadal-tokens";
inline constexpr std::uint32_t kTokenFormatVersion = 1;

/// What the root attributes say, counts and hashes aside.
struct TokenFileInfo {
  std::string tokenizer_hash;  ///< XXH3-128 in hex of the tokenizer's content; empty: unknown
  std::string tokenizer_name;
  std::uint64_t vocab_size = 0;    ///< every id is below
  std::int64_t eos_token_id = -1;  ///< -1: none
  std::size_t token_bytes = 4;     ///< 2 or 4
  std::string created_utc;         ///< "2026-01-31T12:00:00Z"
  std::string source = "{}";       ///< JSON: where the text came from; at most kMaxSourceBytes
};

inline constexpr std::size_t kMaxSourceBytes = 16 * 1024;

/// 2 when every id below vocab_size fits, else 4.
inline std::size_t token_bytes_for(std::uint64_t vocab_size) { return vocab_size <= 65536 ? 2 : 4; }

/// Now, or SOURCE_DATE_EPOCH where that is set, in the form of created_utc.
std::string utc_now();

/// Number of 4 MiB blocks of `bytes` bytes.
inline std::uint64_t num_token_blocks(std::uint64_t bytes) { return bytes / kTokenBlockBytes + (bytes % kTokenBlockBytes != 0); }

/// Feeds the attributes' part of head_hash.
void hash_attributes(Hasher& hasher, const std::map<std::string, Hdf5Attribute>& attributes);

/// The user block of a finished file.
std::array<std::byte, kUserBlockBytes> make_user_block(std::uint64_t metadata_end, std::uint64_t file_bytes,
                                                       const Hash128& metadata_hash);

}  // namespace hadal::data
