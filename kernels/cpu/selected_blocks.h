// The union of the selected blocks of a strip of rows, as pieces of consecutive keys laid side by side in a score buffer.
#pragma once

#include <vector>

#include "kernels/cpu/attention_inputs.h"

namespace hadal::kernels::cpu {

/// Keys [begin, begin + count) of the sequence, at columns [column, column + round_up(count, lanes)) of the scores.
struct KeyPiece {
  int64_t begin;
  int64_t count;
  int64_t column;
};

/// Reads the block lists of one sequence and key head; one object per task.
class SelectedBlocks {
 public:
  static constexpr int64_t kColumns = 256;  ///< columns of a score buffer

  SelectedBlocks(const std::int32_t* blocks, int64_t num_groups, int64_t num_blocks, int64_t select_block, int64_t keys,
                 int64_t lanes)
      : blocks_(blocks), num_groups_(num_groups), num_blocks_(num_blocks), select_block_(select_block), keys_(keys), lanes_(lanes),
        words_(static_cast<std::size_t>((keys / select_block) / 64 + 1)) {
    for (Row& row : rows_) row.bits.resize(words_);
    all_.resize(words_);
  }

  /// One row of the strip: its token (row of `blocks`), selection group and position in the sequence.
  void set_row(int64_t row, int64_t token, int64_t group, int64_t position) {
    Row& r = rows_[row];
    std::fill(r.bits.begin(), r.bits.end(), 0);
    r.position = position;
    const std::int32_t* list = blocks_ + (token * num_groups_ + group) * num_blocks_;
    for (int64_t i = 0; i < num_blocks_; ++i) {
      if (list[i] < 0) continue;
      const int64_t block = list[i];
      HADAL_CHECK(block * select_block_ < std::max<int64_t>(keys_, 1), "selected block {} of {} keys, {} a block", block, keys_,
                  select_block_);
      if (block * select_block_ <= position) r.bits[static_cast<std::size_t>(block / 64)] |= std::uint64_t{1} << (block % 64);
    }
  }

  /// After set_row of every row: batches of pieces, each batch fits kColumns. Ascending keys.
  const std::vector<std::vector<KeyPiece>>& pieces(int64_t rows) {
    batches_.clear();
    int64_t last_position = 0;
    for (std::size_t word = 0; word < words_; ++word) {
      all_[word] = 0;
      for (int64_t row = 0; row < rows; ++row) all_[word] |= rows_[row].bits[word];
    }
    for (int64_t row = 0; row < rows; ++row) last_position = std::max(last_position, rows_[row].position);
    const int64_t limit = std::min(keys_, last_position + 1);
    int64_t begin = -1, end = -1;
    for (std::size_t word = 0; word < words_; ++word) {
      for (std::uint64_t bits = all_[word]; bits != 0; bits &= bits - 1) {
        const int64_t block = static_cast<int64_t>(word) * 64 + __builtin_ctzll(bits);
        if (block * select_block_ != end) {
          add(begin, end);
          begin = block * select_block_;
        }
        end = std::min((block + 1) * select_block_, limit);
      }
    }
    add(begin, end);
    return batches_;
  }

  /// Puts -inf where row `row` does not see a key of the piece, padding included; s is the row's score at the piece's column.
  template <class T>
  void mask(int64_t row, const KeyPiece& piece, T* s) const {
    const Row& r = rows_[row];
    const int64_t end = piece.begin + piece.count;
    for (int64_t key = piece.begin; key < end;) {
      const int64_t block = key / select_block_, next = std::min((block + 1) * select_block_, end);
      const bool chosen = (r.bits[static_cast<std::size_t>(block / 64)] >> (block % 64) & 1) != 0;
      const int64_t seen = chosen ? std::clamp(r.position + 1, key, next) : key;
      std::fill(s + (seen - piece.begin), s + (next - piece.begin), kMasked<T>);
      key = next;
    }
    std::fill(s + piece.count, s + round_up(piece.count, lanes_), kMasked<T>);
  }

 private:
  struct Row {
    std::vector<std::uint64_t> bits;
    int64_t position = 0;
  };

  void add(int64_t begin, int64_t end) {
    while (begin >= 0 && begin < end) {
      int64_t column = 0;
      if (!batches_.empty()) {
        const KeyPiece& last = batches_.back().back();
        column = last.column + round_up(last.count, lanes_);
      }
      if (batches_.empty() || column + lanes_ > kColumns) {
        batches_.emplace_back();
        column = 0;
      }
      const int64_t count = std::min(end - begin, kColumns - column);
      batches_.back().push_back({begin, count, column});
      begin += count;
    }
  }

  const std::int32_t* blocks_;
  int64_t num_groups_, num_blocks_, select_block_, keys_, lanes_;
  std::size_t words_;
  Row rows_[kStripRows];
  std::vector<std::uint64_t> all_;
  std::vector<std::vector<KeyPiece>> batches_;
};

}  // namespace hadal::kernels::cpu
