// (left id, right id) -> count during training: open-addressed, grows, never forgets a pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tokenizer/piece_hash.h"

namespace hadal::tokenizer {

inline std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32 | right; }

class PairTable {
 public:
  PairTable() : slots_(std::size_t{1} << 12) {}

  /// The pair's count, 0 for a new pair. Valid until the next call.
  std::int64_t& operator[](std::uint64_t key) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[slot_of(slots_, key)];
    if (slot.key == kEmpty) {
      slot.key = key;
      ++used_;
    }
    return slot.count;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no id is 2^32 - 1
  struct Slot {
    std::uint64_t key = kEmpty;
    std::int64_t count = 0;
  };

  static std::size_t slot_of(const std::vector<Slot>& slots, std::uint64_t key) {
    const std::size_t mask = slots.size() - 1;
    std::size_t at = mix64(key ^ 0x9E3779B97F4A7C15u, 0xD6E8FEB86659FD93u) & mask;
    while (slots[at].key != kEmpty && slots[at].key != key) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<Slot> larger(slots_.size() * 2);
    for (const Slot& slot : slots_) {
      if (slot.key != kEmpty) larger[slot_of(larger, slot.key)] = slot;
    }
    slots_ = std::move(larger);
  }

  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

}  // namespace hadal::tokenizer
