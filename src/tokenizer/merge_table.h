// (left id, right id) -> (rank, new id): an open-addressed table, read-only after construction.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tokenizer/piece_hash.h"

namespace hadal::tokenizer {

struct MergeRule {
  static constexpr std::uint32_t kNone = 0xFFFFFFFFu;
  std::uint32_t rank = kNone;  ///< kNone: the pair does not merge
  std::uint32_t id = 0;
};

class MergeTable {
 public:
  MergeTable() : MergeTable(0) {}
  explicit MergeTable(std::size_t num_merges) : slots_(std::bit_ceil(2 * num_merges + 2)) {}

  /// A pair inserted twice keeps the later rule.
  void insert(std::uint32_t left, std::uint32_t right, MergeRule rule) {
    Slot& slot = slots_[slot_of(left, right)];
    slot = Slot{left, right, rule};
  }

  MergeRule find(std::uint32_t left, std::uint32_t right) const { return slots_[slot_of(left, right)].rule; }

 private:
  struct Slot {
    std::uint32_t left = 0;
    std::uint32_t right = 0;
    MergeRule rule;
  };

  // The pair's slot, or the empty one where it would go: the table is at most half full.
  std::size_t slot_of(std::uint32_t left, std::uint32_t right) const {
    const std::size_t mask = slots_.size() - 1;
    const std::uint64_t key = std::uint64_t{left} << 32 | right;
    std::size_t at = mix64(key ^ 0x9E3779B97F4A7C15u, 0xD6E8FEB86659FD93u) & mask;
    while (slots_[at].rule.rank != MergeRule::kNone && (slots_[at].left != left || slots_[at].right != right)) {
      at = (at + 1) & mask;
    }
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace hadal::tokenizer
