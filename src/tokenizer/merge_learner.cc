#include "tokenizer/merge_learner.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/parallel_for.h"
#include "tokenizer/byte_map.h"
#include "tokenizer/pair_table.h"
#include "tokenizer/utf8.h"
#include "tokenizer/word_merger.h"

namespace hadal::tokenizer {
namespace {

struct Candidate {
  std::int64_t count = 0;
  std::uint64_t pair = 0;
  std::size_t list = 0;  // of words, in Learner::lists_
  // Top of the heap: the largest count, then the smallest pair.
  bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : pair > other.pair; }
};

std::uint32_t num_characters(std::string_view mapped) {
  std::uint32_t count = 0;
  for (std::size_t at = 0; at < mapped.size(); at += decode_character(mapped, at).size) ++count;
  return count;
}

class Learner {
 public:
  Learner(const PieceCounter& pieces, std::vector<std::string> tokens, const MergeLimits& limits)
      : limits_(limits), tokens_(std::move(tokens)), byte_ids_(index_tokens()), words_(pieces, byte_ids_) {
    if (limits_.max_token_length > 0) max_length_ = static_cast<std::uint64_t>(limits_.max_token_length);
    count_byte_pairs();
  }

  LearnedMerges run(const std::function<void(std::size_t)>& on_merge) {
    while (std::cmp_less(tokens_.size(), limits_.vocab_size) && !queue_.empty()) {
      Candidate top = queue_.top();
      queue_.pop();
      const std::int64_t current = counts_[top.pair];
      if (top.count != current) {
        top.count = current;
        queue_.push(top);
        continue;
      }
      if (top.count < 1 || top.count < limits_.min_frequency) break;
      apply(top);
      if (on_merge) on_merge(tokens_.size());
    }
    return {std::move(tokens_), last_of_each_pair()};
  }

 private:
  std::array<std::uint32_t, 256> index_tokens() {
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      ids_.emplace(tokens_[id], static_cast<std::uint32_t>(id));
      lengths_.push_back(num_characters(tokens_[id]));
    }
    std::array<std::uint32_t, 256> byte_ids{};
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto found = ids_.find(map_bytes(std::string(1, static_cast<char>(byte))));
      HADAL_CHECK(found != ids_.end(), "no symbol for byte {}", byte);
      byte_ids[byte] = found->second;
    }
    return byte_ids;
  }

  // Step 3: words are byte symbols still, so a pair is two bytes and all counts fit a table. Lanes are ascending ranges of words.
  void count_byte_pairs() {
    struct Pair {
      std::int64_t count = 0;
      std::vector<std::uint32_t> words;
    };
    std::unordered_map<std::uint32_t, std::size_t> byte_of;
    for (std::size_t byte = 0; byte < 256; ++byte) byte_of.emplace(byte_ids_[byte], byte);
    std::vector<std::uint8_t> bytes(tokens_.size());
    for (const auto& [id, byte] : byte_of) bytes[id] = static_cast<std::uint8_t>(byte);

    const auto lanes = static_cast<std::size_t>(num_threads());
    std::vector<std::vector<Pair>> pairs(lanes);
    parallel_for(num_threads(), [&](std::int64_t index) {
      const auto lane = static_cast<std::size_t>(index);
      pairs[lane].resize(65536);
      const std::size_t end = words_.num_words() * (lane + 1) / lanes;
      for (std::size_t i = words_.num_words() * lane / lanes; i < end; ++i) {
        const auto word = static_cast<std::uint32_t>(i);
        const auto symbols = words_.word(word);
        for (std::size_t at = 0; at + 1 < symbols.size(); ++at) {
          Pair& pair = pairs[lane][std::size_t{bytes[symbols[at]]} << 8 | bytes[symbols[at + 1]]];
          pair.count += words_.count(word);
          if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
        }
      }
    });
    for (std::size_t key = 0; key < 65536; ++key) {
      Pair& sum = pairs[0][key];
      for (std::size_t lane = 1; lane < lanes; ++lane) {
        const Pair& part = pairs[lane][key];
        sum.count += part.count;
        sum.words.insert(sum.words.end(), part.words.begin(), part.words.end());
      }
      if (sum.count == 0) continue;
      const std::uint64_t pair = pair_key(byte_ids_[key >> 8], byte_ids_[key & 255]);
      counts_[pair] = sum.count;
      push(pair, sum.count, std::move(sum.words));
    }
  }

  void push(std::uint64_t pair, std::int64_t count, std::vector<std::uint32_t> words) {
    std::size_t list = lists_.size();
    if (free_lists_.empty()) {
      lists_.push_back(std::move(words));
    } else {
      list = free_lists_.back();
      free_lists_.pop_back();
      lists_[list] = std::move(words);
    }
    queue_.push(Candidate{count, pair, list});
  }

  // Steps 6 and 7.
  void apply(const Candidate& top) {
    const auto left = static_cast<std::uint32_t>(top.pair >> 32);
    const auto right = static_cast<std::uint32_t>(top.pair);
    std::string content = tokens_[left] + tokens_[right];
    auto merged = static_cast<std::uint32_t>(tokens_.size());
    const auto [known, is_new] = ids_.try_emplace(content, merged);
    if (is_new) {
      tokens_.push_back(std::move(content));
      lengths_.push_back(lengths_[left] + lengths_[right]);
    } else {
      merged = known->second;
    }
    merges_.push_back({left, right, merged});

    const std::vector<std::uint32_t> affected = std::exchange(lists_[top.list], {});
    free_lists_.push_back(top.list);
    MergeChanges changes = words_.merge(left, right, merged, affected, lengths_, max_length_);
    fresh_.clear();
    for (NeighbourChange& change : changes.left) {
      const std::uint32_t other = change.neighbour;
      update(pair_key(other, left), change.old_pair, pair_key(other, merged), change);
    }
    for (NeighbourChange& change : changes.right) {
      const std::uint32_t other = change.neighbour;
      update(pair_key(right, other), change.old_pair, pair_key(merged, other), change);
    }
    // Counts are final only now; (n, n) may have come from both sides.
    for (auto& [pair, words] : fresh_) {
      const std::int64_t count = counts_[pair];
      if (count > 0 && !words.empty()) push(pair, count, std::move(words));
    }
  }

  void update(std::uint64_t old_pair, std::int64_t old_change, std::uint64_t new_pair, NeighbourChange& change) {
    counts_[old_pair] += old_change;
    if (change.words.empty()) return;
    counts_[new_pair] += change.new_pair;
    if (new_pair >> 32 == (new_pair & 0xFFFFFFFFu)) {
      for (auto& [pair, words] : fresh_) {
        if (pair != new_pair) continue;
        words.insert(words.end(), change.words.begin(), change.words.end());
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        return;
      }
    }
    fresh_.emplace_back(new_pair, std::move(change.words));
  }

  // A pair merged twice keeps its later rank, as in HF's map of merges.
  std::vector<LearnedMerge> last_of_each_pair() const {
    std::unordered_map<std::uint64_t, std::size_t> last;
    for (std::size_t rank = 0; rank < merges_.size(); ++rank) last[pair_key(merges_[rank].left, merges_[rank].right)] = rank;
    std::vector<LearnedMerge> kept;
    for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
      if (last[pair_key(merges_[rank].left, merges_[rank].right)] == rank) kept.push_back(merges_[rank]);
    }
    return kept;
  }

  MergeLimits limits_;
  std::uint64_t max_length_ = std::numeric_limits<std::uint64_t>::max();
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, std::uint32_t> ids_;
  std::vector<std::uint32_t> lengths_;
  std::array<std::uint32_t, 256> byte_ids_;
  WordMerger words_;
  PairTable counts_;
  std::vector<std::vector<std::uint32_t>> lists_;
  std::vector<std::size_t> free_lists_;
  std::priority_queue<Candidate> queue_;
  std::vector<LearnedMerge> merges_;
  std::vector<std::pair<std::uint64_t, std::vector<std::uint32_t>>> fresh_;
};

}  // namespace

LearnedMerges learn_merges(const PieceCounter& pieces, std::vector<std::string> tokens, const MergeLimits& limits,
                           const std::function<void(std::size_t)>& on_merge) {
  return Learner(pieces, std::move(tokens), limits).run(on_merge);
}

}  // namespace hadal::tokenizer
