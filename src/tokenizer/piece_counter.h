// Counts of distinct pieces: an open-addressed table over an arena of bytes. One per thread while text streams by; then joined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::tokenizer {

class PieceCounter {
 public:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint64_t offset = 0;  ///< into the arena
    std::uint64_t count = 0;   ///< 0: an empty slot
    std::uint32_t size = 0;
  };

  PieceCounter();
  /// Adds `count` to the piece's count; pieces have at most 2^32 - 1 bytes.
  void add(std::string_view piece, std::uint64_t count = 1);
  /// Adds all of `other`.
  void merge(const PieceCounter& other);

  std::size_t num_unique() const { return num_unique_; }
  std::uint64_t total() const { return total_; }
  std::string_view piece(const Entry& entry) const { return std::string_view(arena_).substr(entry.offset, entry.size); }
  /// Entries in an order that depends on the set of pieces alone (not on who counted what when).
  std::vector<Entry> sorted_entries() const;

 private:
  void add_hashed(std::uint64_t hash, std::string_view piece, std::uint64_t count);
  void grow();

  std::vector<Entry> slots_;
  std::string arena_;
  std::size_t num_unique_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace hadal::tokenizer
