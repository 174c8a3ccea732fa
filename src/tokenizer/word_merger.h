// The words of BPE training as ids, and one merge applied to many of them at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tokenizer/piece_counter.h"

namespace hadal::tokenizer {

/// What one merge (a, b) -> n did to the pairs with one neighbour x: of (x, a) and (x, n) on the left side, of (b, x) and (n, x)
/// on the right side.
struct NeighbourChange {
  std::uint32_t neighbour = 0;
  std::int64_t old_pair = 0;         ///< change of the count of (x, a) or (b, x)
  std::int64_t new_pair = 0;         ///< change of the count of (x, n) or (n, x)
  std::vector<std::uint32_t> words;  ///< where the new pair came up, ascending, each once
};

struct MergeChanges {
  std::vector<NeighbourChange> left;
  std::vector<NeighbourChange> right;
};

/// Neighbours seen in one merge, found by id in constant time.
class ChangeCollector {
 public:
  NeighbourChange& of(std::uint32_t neighbour) {
    if (neighbour >= index_.size()) index_.resize(neighbour + neighbour / 2 + 64, 0);
    if (index_[neighbour] == 0) {
      changes_.push_back({.neighbour = neighbour, .words = {}});
      index_[neighbour] = static_cast<std::uint32_t>(changes_.size());
    }
    return changes_[index_[neighbour] - 1];
  }
  /// What was collected, in order of first sight; the collector is empty afterwards.
  std::vector<NeighbourChange> take() {
    for (const NeighbourChange& change : changes_) index_[change.neighbour] = 0;
    return std::exchange(changes_, {});
  }

 private:
  std::vector<std::uint32_t> index_;  // place in changes_ + 1, 0: not seen
  std::vector<NeighbourChange> changes_;
};

class WordMerger {
 public:
  /// Words of the counter, each byte as `byte_ids[byte]`.
  WordMerger(const PieceCounter& pieces, std::span<const std::uint32_t, 256> byte_ids);

  std::size_t num_words() const { return counts_.size(); }
  std::span<const std::uint32_t> word(std::uint32_t index) const {
    return {symbols_.data() + begins_[index], static_cast<std::size_t>(sizes_[index])};
  }
  std::int64_t count(std::uint32_t index) const { return counts_[index]; }

  /// Replaces (a, b) by n from left to right in each of `words` (ascending, unique); `lengths` are the tokens' bytes, and a new
  /// pair whose bytes reach `max_length` is not counted.
  MergeChanges merge(std::uint32_t a, std::uint32_t b, std::uint32_t n, std::span<const std::uint32_t> words,
                     std::span<const std::uint32_t> lengths, std::uint64_t max_length);

 private:
  struct Lane {  // one thread's share
    ChangeCollector left;
    ChangeCollector right;
  };
  void merge_word(std::uint32_t a, std::uint32_t b, std::uint32_t n, std::uint32_t word, std::span<const std::uint32_t> lengths,
                  std::uint64_t max_length, Lane& lane);

  std::vector<std::uint32_t> symbols_;
  std::vector<std::uint64_t> begins_;
  std::vector<std::uint32_t> sizes_;
  std::vector<std::int64_t> counts_;
  std::vector<Lane> lanes_;
};

}  // namespace hadal::tokenizer
