// Training of a byte-level BPE vocabulary, with the counts, tie-breaking and id order of HF's BpeTrainer (spec/interop.md 4.5).
// Counts are 64-bit and the result does not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace hadal::tokenizer {

/// Ids 0.. in this order: bos, eos, pad, then the fill-in-the-middle marks (spec/interop.md 4.1).
const std::vector<std::string>& default_special_tokens();

/// A stage of training and how far it is; `total` 0 when unknown. Stages: "read" (bytes), "merge" (merges).
struct TrainProgress {
  std::string_view stage;
  std::uint64_t current = 0;
  std::uint64_t total = 0;
};

struct TrainOptions {
  std::int64_t vocab_size = 2048;  ///< special tokens and the 256 byte symbols included
  PreTokenizerKind pre_tokenizer = PreTokenizerKind::kDeepSeekV3;
  std::vector<std::string> special_tokens = default_special_tokens();
  std::int64_t min_frequency = 0;     ///< pairs seen less often are not merged
  std::int64_t max_token_length = 0;  ///< bytes; 0: no limit
  /// Names of the roles; each must be among special_tokens, or empty for none.
  std::string bos_token = "<|bos|>";
  std::string eos_token = "<|eos|>";
  std::string pad_token = "<|pad|>";
  std::function<void(const TrainProgress&)> progress;  ///< called on the calling thread, may be empty
};

/// The next text (one document), or nothing at the end. Called on one thread.
using TextSource = std::function<std::optional<std::string>()>;

struct TrainStatistics {
  std::uint64_t bytes = 0;   ///< text read
  std::uint64_t pieces = 0;  ///< pre-token pieces, repeated ones counted
  std::uint64_t unique_pieces = 0;
  std::uint64_t merges = 0;
  std::uint64_t replaced = 0;  ///< U+FFFD written for invalid UTF-8
  double seconds = 0;
};

/// Trains on every text of `source`; a vocabulary smaller than asked results when no pair is left, which is not an error.
Tokenizer train(const TrainOptions& options, const TextSource& source, TrainStatistics* statistics = nullptr);

/// The texts of files, in order: each file is one document, handed out in parts cut where no piece crosses; directories are
/// walked in name order. Bounded memory. UserError on a missing path.
TextSource read_text_files(const std::vector<std::filesystem::path>& paths, PreTokenizerKind kind);

}  // namespace hadal::tokenizer
