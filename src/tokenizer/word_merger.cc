#include "tokenizer/word_merger.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/parallel_for.h"

namespace hadal::tokenizer {
namespace {

// Below this many words a merge is done before other threads would have started.
constexpr std::size_t kWordsPerLane = 2048;

void note_word(std::vector<std::uint32_t>& words, std::uint32_t word) {
  if (words.empty() || words.back() != word) words.push_back(word);
}

// Lanes hold ascending ranges of words, so concatenation in lane order keeps the lists ascending.
void join(ChangeCollector& into, ChangeCollector& from) {
  for (NeighbourChange& change : from.take()) {
    NeighbourChange& sum = into.of(change.neighbour);
    sum.old_pair += change.old_pair;
    sum.new_pair += change.new_pair;
    if (sum.words.empty()) {
      sum.words = std::move(change.words);
    } else {
      sum.words.insert(sum.words.end(), change.words.begin(), change.words.end());
    }
  }
}

}  // namespace

WordMerger::WordMerger(const PieceCounter& pieces, std::span<const std::uint32_t, 256> byte_ids)
    : lanes_(static_cast<std::size_t>(num_threads())) {
  const std::vector<PieceCounter::Entry> entries = pieces.sorted_entries();
  HADAL_CHECK(entries.size() < UINT32_MAX, "{} distinct pieces", entries.size());
  std::uint64_t total = 0;
  for (const auto& entry : entries) total += entry.size;
  symbols_.reserve(total);
  begins_.reserve(entries.size());
  sizes_.reserve(entries.size());
  counts_.reserve(entries.size());
  for (const auto& entry : entries) {
    begins_.push_back(symbols_.size());
    sizes_.push_back(entry.size);
    counts_.push_back(static_cast<std::int64_t>(entry.count));
    for (const char byte : pieces.piece(entry)) symbols_.push_back(byte_ids[static_cast<unsigned char>(byte)]);
  }
}

void WordMerger::merge_word(std::uint32_t a, std::uint32_t b, std::uint32_t n, std::uint32_t word,
                            std::span<const std::uint32_t> lengths, std::uint64_t max_length, Lane& lane) {
  std::uint32_t* const symbols = symbols_.data() + begins_[word];
  const std::uint32_t size = sizes_[word];
  const std::int64_t count = counts_[word];
  // `put` symbols are final; symbols[at ..] are still as they were.
  std::uint32_t put = 0;
  for (std::uint32_t at = 0; at < size; ++put) {
    if (symbols[at] != a || at + 1 >= size || symbols[at + 1] != b) {
      symbols[put] = symbols[at++];
      continue;
    }
    if (put > 0) {
      const std::uint32_t previous = symbols[put - 1];
      NeighbourChange& change = lane.left.of(previous);
      change.old_pair -= count;
      if (std::uint64_t{lengths[previous]} + lengths[n] < max_length) {
        change.new_pair += count;
        note_word(change.words, word);
      }
    }
    symbols[put] = n;
    at += 2;
    if (at < size) {
      const std::uint32_t next = symbols[at];
      NeighbourChange& change = lane.right.of(next);
      change.old_pair -= count;
      if (std::uint64_t{lengths[next]} + lengths[n] < max_length) {
        change.new_pair += count;
        note_word(change.words, word);
      }
    }
  }
  sizes_[word] = put;
}

MergeChanges WordMerger::merge(std::uint32_t a, std::uint32_t b, std::uint32_t n, std::span<const std::uint32_t> words,
                               std::span<const std::uint32_t> lengths, std::uint64_t max_length) {
  const std::size_t lanes = std::clamp<std::size_t>(words.size() / kWordsPerLane, 1, lanes_.size());
  parallel_for(static_cast<std::int64_t>(lanes), [&](std::int64_t index) {
    const auto lane = static_cast<std::size_t>(index);
    const std::size_t begin = words.size() * lane / lanes;
    const std::size_t end = words.size() * (lane + 1) / lanes;
    for (std::size_t i = begin; i < end; ++i) merge_word(a, b, n, words[i], lengths, max_length, lanes_[lane]);
  });
  for (std::size_t lane = 1; lane < lanes; ++lane) {
    join(lanes_[0].left, lanes_[lane].left);
    join(lanes_[0].right, lanes_[lane].right);
  }
  return {lanes_[0].left.take(), lanes_[0].right.take()};
}

}  // namespace hadal::tokenizer
