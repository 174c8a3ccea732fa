#include "tokenizer/train.h"

#include <algorithm>
#include <chrono>
#include <unordered_set>

#include "core/error.h"
#include "core/parallel_for.h"
#include "tokenizer/byte_map.h"
#include "tokenizer/merge_learner.h"
#include "tokenizer/piece_counter.h"
#include "tokenizer/tokenizer_document.h"
#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

constexpr std::size_t kBatchBytes = std::size_t{8} << 20;  // texts gathered before the threads count them
constexpr std::size_t kTaskBytes = std::size_t{128} << 10;

// Specials in the given order, then the byte symbols by code point (step 2).
std::vector<std::string> initial_tokens(const TrainOptions& options) {
  std::vector<std::string> tokens;
  std::unordered_set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    if (token.empty()) throw UserError("special tokens: an empty string cannot be a token");
    if (valid_prefix(token) != token.size()) throw UserError("special token '{}' is not valid UTF-8", token);
    if (unmap_bytes(token).value_or("").size() == 1) throw UserError("special token '{}' is the symbol of a byte", token);
    if (!seen.insert(token).second) throw UserError("special token '{}' is given twice", token);
    tokens.push_back(token);
  }
  for (const std::string& role : {options.bos_token, options.eos_token, options.pad_token}) {
    if (!role.empty() && !seen.contains(role)) throw UserError("'{}' has a role but is not among the special tokens", role);
  }
  for (const std::uint8_t byte : bytes_in_alphabet_order()) tokens.push_back(map_bytes(std::string(1, static_cast<char>(byte))));
  const auto least = static_cast<std::int64_t>(tokens.size());
  if (options.vocab_size < least || options.vocab_size > kMaxTokenId) {
    throw UserError("vocabulary of {}: choose from {} ({} special tokens and 256 bytes) to {}", options.vocab_size, least,
                    options.special_tokens.size(), kMaxTokenId);
  }
  return tokens;
}

// Counts the pieces of all texts (step 1); one table per thread, joined at the end.
class ParallelCounter {
 public:
  explicit ParallelCounter(PreTokenizerKind kind)
      : kind_(kind), counters_(static_cast<std::size_t>(num_threads())), replaced_(counters_.size(), 0) {}

  void count(const std::vector<std::string>& texts) {
    std::vector<std::string_view> tasks;
    for (const std::string_view text : texts) {
      for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = begin + kTaskBytes < text.size() ? find_safe_cut(kind_, text, begin + kTaskBytes) : text.size();
        tasks.push_back(text.substr(begin, end - begin));
        begin = end;
      }
    }
    const std::int64_t grain = std::max<std::int64_t>(1, std::ssize(tasks) / (16 * num_threads()));
    parallel_ranges(std::ssize(tasks), grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) count_text(tasks[static_cast<std::size_t>(i)]);
    });
  }

  PieceCounter finish(std::uint64_t& replaced) {
    for (std::size_t i = 1; i < counters_.size(); ++i) counters_[0].merge(std::exchange(counters_[i], PieceCounter()));
    for (const std::size_t count : replaced_) replaced += count;
    return std::move(counters_[0]);
  }

 private:
  void count_text(std::string_view text) {
    thread_local std::vector<std::string_view> pieces;
    const auto thread = static_cast<std::size_t>(thread_index());
    std::string repaired;
    if (valid_prefix(text) != text.size()) {
      repaired = replace_invalid(text, replaced_[thread]);
      text = repaired;
    }
    pieces.clear();
    split_pieces(kind_, text, pieces);
    for (const std::string_view piece : pieces) counters_[thread].add(piece);
  }

  PreTokenizerKind kind_;
  std::vector<PieceCounter> counters_;
  std::vector<std::size_t> replaced_;
};

TokenizerDocument document_of(const TrainOptions& options, const LearnedMerges& learned) {
  TokenizerDocument document{.pre_tokenizer = options.pre_tokenizer, .vocabulary = {}, .merges = {}, .added_tokens = {}};
  for (std::size_t id = 0; id < learned.tokens.size(); ++id) {
    document.vocabulary.push_back({learned.tokens[id], static_cast<std::int32_t>(id)});
  }
  for (const LearnedMerge& merge : learned.merges) {
    document.merges.push_back(
        {static_cast<std::int32_t>(merge.left), static_cast<std::int32_t>(merge.right), static_cast<std::int32_t>(merge.merged)});
  }
  for (std::size_t id = 0; id < options.special_tokens.size(); ++id) {
    document.added_tokens.push_back({.id = static_cast<std::int32_t>(id), .content = options.special_tokens[id], .special = true});
  }
  return document;
}

}  // namespace

const std::vector<std::string>& default_special_tokens() {
  static const std::vector<std::string> tokens = {"<|bos|>",       "<|eos|>",      "<|pad|>",
                                                  "<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"};
  return tokens;
}

Tokenizer train(const TrainOptions& options, const TextSource& source, TrainStatistics* statistics) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::string> initial = initial_tokens(options);
  TrainStatistics figures;
  const auto report = [&options](std::string_view stage, std::uint64_t current, std::uint64_t total) {
    if (options.progress) options.progress({stage, current, total});
  };

  ParallelCounter counter(options.pre_tokenizer);
  for (bool more = true; more;) {
    std::vector<std::string> batch;
    std::size_t bytes = 0;
    while (bytes < kBatchBytes) {
      std::optional<std::string> text = source();
      more = text.has_value();
      if (!more) break;
      bytes += text->size();
      batch.push_back(std::move(*text));
    }
    counter.count(batch);
    figures.bytes += bytes;
    report("read", figures.bytes, 0);
  }
  const PieceCounter pieces = counter.finish(figures.replaced);
  figures.pieces = pieces.total();
  figures.unique_pieces = pieces.num_unique();

  const auto wanted = static_cast<std::uint64_t>(options.vocab_size) - initial.size();
  const std::size_t num_initial = initial.size();
  const LearnedMerges learned =
      learn_merges(pieces, std::move(initial), {options.vocab_size, options.min_frequency, options.max_token_length},
                   [&](std::size_t tokens) { report("merge", tokens - num_initial, wanted); });
  figures.merges = learned.merges.size();

  const TokenizerDocument document = document_of(options, learned);
  const Tokenizer tokenizer = Tokenizer::from_json(
      write_tokenizer_json(document), write_tokenizer_config(document, {options.bos_token, options.eos_token, options.pad_token}),
      "trained tokenizer");
  figures.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (statistics != nullptr) *statistics = figures;
  return tokenizer;
}

}  // namespace hadal::tokenizer
