// The selected blocks turned around: for every block, the rows that read it (spec/model.md 8.5).
#pragma once

#include <vector>

#include "kernels/cpu/attention_inputs.h"

namespace hadal::kernels::cpu {

/// Rows of tokens [first, last) of sequence b and key head kv (row 0 is the first head of token `first`) by block, ascending.
/// Blocks that start after a token's position are left out: it sees nothing of them.
class BlockLists {
 public:
  template <class T, class Args>
  BlockLists(const Args& args, const AttentionInputs<T>& in, int64_t query_start, int64_t b, int64_t kv, int64_t first,
             int64_t last)
      : begin_(static_cast<std::size_t>((in.keys + args.select_block - 1) / args.select_block + 1), 0) {
    const int64_t groups = args.blocks.shape[1], chosen = args.blocks.shape[2], heads_per_group = in.heads / groups;
    const std::int32_t* const lists = args.blocks.template as<std::int32_t>();
    const auto visit = [&](const auto& body) {
      for (int64_t t = first; t < last; ++t) {
        for (int64_t g = 0; g < in.group; ++g) {
          const int64_t group = (kv * in.group + g) / heads_per_group;
          const std::int32_t* const list = lists + ((b * in.tokens + t) * groups + group) * chosen;
          for (int64_t i = 0; i < chosen; ++i) {
            HADAL_CHECK(list[i] < num_blocks(), "selected block {} of {}", list[i], num_blocks());
            if (list[i] < 0 || list[i] * args.select_block > query_start + t) continue;
            body(static_cast<std::size_t>(list[i]), static_cast<std::int32_t>((t - first) * in.group + g));
          }
        }
      }
    };
    visit([&](std::size_t block, std::int32_t) { ++begin_[block + 1]; });
    for (std::size_t block = 1; block < begin_.size(); ++block) begin_[block] += begin_[block - 1];
    rows_.resize(static_cast<std::size_t>(begin_.back()));
    std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
    visit([&](std::size_t block, std::int32_t row) { rows_[static_cast<std::size_t>(next[block]++)] = row; });
  }

  int64_t num_blocks() const { return static_cast<int64_t>(begin_.size()) - 1; }
  int64_t count(int64_t block) const {
    return begin_[static_cast<std::size_t>(block) + 1] - begin_[static_cast<std::size_t>(block)];
  }
  const std::int32_t* rows(int64_t block) const { return rows_.data() + begin_[static_cast<std::size_t>(block)]; }

 private:
  std::vector<int64_t> begin_;
  std::vector<std::int32_t> rows_;
};

}  // namespace hadal::kernels::cpu
