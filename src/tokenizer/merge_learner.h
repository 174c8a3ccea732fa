// The merge loop of BPE training (spec/interop.md 4.5, steps 3 to 7), equal to HF's BpeTrainer merge by merge.
//
// Words are the distinct pieces as token ids. A heap holds candidates (pair, count, the words where the pair came up); the
// largest count wins, ties go to the smaller (left id, right id). A candidate whose count is stale goes back with the current
// one. Two details of HF decide real vocabularies and are kept: the count of a merged pair is not lowered by the merge itself,
// and when a merge makes a string that already has an id, that id is used again, so a pair may be candidate more than once, each
// time with its own words, and may be merged twice (the later rank is the one that stays).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tokenizer/piece_counter.h"

namespace hadal::tokenizer {

struct LearnedMerge {
  std::uint32_t left = 0;
  std::uint32_t right = 0;
  std::uint32_t merged = 0;
};

struct MergeLimits {
  std::int64_t vocab_size = 0;
  std::int64_t min_frequency = 0;
  std::int64_t max_token_length = 0;  ///< bytes; 0: no limit. As in HF, the joined length must stay below it.
};

struct LearnedMerges {
  std::vector<std::string> tokens;   ///< content by id, in mapped form
  std::vector<LearnedMerge> merges;  ///< in rank order, each pair once
};

/// `tokens`: the initial vocabulary by id, in mapped form, with all 256 byte symbols. `on_merge(number of tokens)` may be empty.
LearnedMerges learn_merges(const PieceCounter& pieces, std::vector<std::string> tokens, const MergeLimits& limits,
                           const std::function<void(std::size_t)>& on_merge);

}  // namespace hadal::tokenizer
