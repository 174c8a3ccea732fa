// Bytes of one piece to ids: start from byte symbols, merge the pair of lowest rank, leftmost on ties, until none applies
// (spec/interop.md 4.6).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/merge_table.h"

namespace hadal::tokenizer {

class PieceEncoder {
 public:
  PieceEncoder(std::array<std::uint32_t, 256> byte_ids, MergeTable merges) : byte_ids_(byte_ids), merges_(std::move(merges)) {}

  /// Appends the ids of `piece`. Thread-safe. O(n^2) up to a few dozen bytes, O(n log n) above.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  void encode_short(std::string_view piece, std::vector<std::int32_t>& ids) const;
  void encode_long(std::string_view piece, std::vector<std::int32_t>& ids) const;

  std::array<std::uint32_t, 256> byte_ids_;
  MergeTable merges_;
};

}  // namespace hadal::tokenizer
