// Ids of pieces seen before: a small direct-mapped table, one per thread, of pieces up to 24 bytes and 8 ids.
// Text repeats its words, so most pieces are answered by one cache line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "tokenizer/piece_hash.h"

namespace hadal::tokenizer {

class PieceCache {
 public:
  static constexpr std::size_t kMaxBytes = 24;
  static constexpr std::size_t kMaxIds = 8;

  /// The calling thread's table, emptied when it last served another model (`owner` is never reused, never 0).
  static PieceCache& of_thread(std::uint64_t owner) {
    thread_local PieceCache cache;
    if (cache.owner_ != owner) {
      cache.slots_.assign(kNumSlots, Slot{});
      cache.owner_ = owner;
    }
    return cache;
  }

  struct Key {
    std::array<std::uint64_t, 3> words{};
    std::uint64_t hash = 0;
    std::uint32_t size = 0;
  };

  /// Key of a piece of 1 .. kMaxBytes bytes. `readable`: bytes that may be read from piece.data() on.
  static Key key_of(std::string_view piece, std::size_t readable) {
    Key key;
    key.size = static_cast<std::uint32_t>(piece.size());
    if (readable >= kMaxBytes) {
      for (std::size_t word = 0; word * 8 < piece.size(); ++word) {
        const std::size_t left = piece.size() - word * 8;
        const std::uint64_t bits = load64(piece.data() + word * 8);
        key.words[word] = left >= 8 ? bits : bits & ((std::uint64_t{1} << (8 * left)) - 1);
      }
    } else {
      std::memcpy(key.words.data(), piece.data(), piece.size());
    }
    key.hash = mix64(key.words[0] ^ 0x9E3779B97F4A7C15u, key.words[1] ^ (0xD6E8FEB86659FD93u + key.size)) ^ key.words[2];
    key.hash = mix64(key.hash, 0xA0761D6478BD642Fu);
    return key;
  }

  /// Appends the ids and returns true when the piece is known.
  bool find(const Key& key, std::vector<std::int32_t>& ids) const {
    const Slot& slot = slots_[key.hash % kNumSlots];
    const std::uint64_t different = (slot.words[0] ^ key.words[0]) | (slot.words[1] ^ key.words[1]) |
                                    (slot.words[2] ^ key.words[2]) | (slot.size ^ key.size);
    if (different != 0) return false;
    if (slot.num_ids == 1) {
      ids.push_back(slot.ids[0]);
    } else {
      ids.insert(ids.end(), slot.ids.begin(), slot.ids.begin() + slot.num_ids);
    }
    return true;
  }

  void insert(const Key& key, const std::int32_t* ids, std::size_t num_ids) {
    if (num_ids > kMaxIds) return;
    Slot& slot = slots_[key.hash % kNumSlots];
    slot.words = key.words;
    slot.size = static_cast<std::uint16_t>(key.size);
    slot.num_ids = static_cast<std::uint16_t>(num_ids);
    std::memcpy(slot.ids.data(), ids, num_ids * sizeof *ids);
  }

 private:
  static constexpr std::size_t kNumSlots = std::size_t{1} << 15;  // 2 MiB a thread

  struct alignas(64) Slot {  // one cache line
    std::array<std::uint64_t, 3> words{};
    std::uint16_t size = 0;  // 0: free
    std::uint16_t num_ids = 0;
    std::array<std::int32_t, kMaxIds> ids{};
  };

  std::uint64_t owner_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace hadal::tokenizer
