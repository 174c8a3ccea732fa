// The order of training samples: a pure function of (seed, epoch, index), the same for any layout and after any restart.
//
// A sample is S + 1 consecutive tokens of a source's epoch stream (data/epoch_stream.h): S inputs and, shifted by one, S
// targets; neighbouring samples of a stream share one token, so every token of an epoch is an input once. The last sample
// of an epoch is filled up from the epoch's start. The samples of an epoch are shuffled; sources are blended by weight
// (data/blend.h), each counting its own epochs. Global sample i is computed from i alone.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "core/hash.h"
#include "core/tensor.h"
#include "data/blend.h"
#include "data/epoch_stream.h"
#include "data/token_source.h"

namespace hadal::data {

struct SamplerOptions {
  std::uint64_t seed = 0;
  std::int64_t sequence_length = 0;  ///< S
  FillInMiddle fim;
  bool shuffle = true;          ///< false: documents and samples in the files' order (validation)
  bool mask_filled_up = false;  ///< true: what fills up an epoch's last sample does not count as a target (validation)
};

struct WeightedSource {
  TokenSourcePtr source;
  double weight = 1.0;
};

/// Rows of consecutive samples. B rows of S.
struct Batch {
  Tensor tokens;        ///< I32 [B, S]
  Tensor targets;       ///< I32 [B, S] the token after each
  Tensor loss_mask;     ///< U8 [B, S] 1 where the target counts (a source's loss mask applies to the token predicted)
  Tensor positions;     ///< I32 [B, S] 0 .. S - 1
  Tensor document_ids;  ///< I32 [B, S] packed documents of the row, from 0; targets may cross into the next one, MTP must not

  std::int64_t num_rows() const { return tokens.shape()[0]; }
};

class Sampler {
 public:
  /// UserError on weights, an empty source, sources that disagree about their tokenizer, or FIM ids that are missing.
  Sampler(std::vector<WeightedSource> sources, const SamplerOptions& options);

  /// Where sample `index` lies.
  struct Address {
    std::size_t source = 0;
    std::uint64_t epoch = 0;   ///< of that source
    std::uint64_t sample = 0;  ///< place in the epoch's stream, in samples
  };
  Address locate(std::uint64_t index) const;

  /// Samples first_index .. first_index + count - 1, one a row. Thread-safe; uses no other thread.
  Batch batch(std::uint64_t first_index, std::int64_t count) const;

  const SamplerOptions& options() const { return options_; }
  std::size_t num_sources() const { return sources_.size(); }
  const TokenSource& source(std::size_t index) const { return *sources_[index].source; }
  /// Samples of one epoch of a source: ceil(tokens of the epoch / S).
  std::uint64_t samples_per_epoch(std::size_t source) const { return samples_per_epoch_[source]; }
  /// Smallest vocabulary that holds every id: the largest of the sources' (0 when no source says).
  std::uint64_t vocab_size() const;

  /// Of everything that decides the order and the content: sources, weights, seed, options.
  Hash128 fingerprint() const;
  /// Before continuing a run: UserError when the run's samples came from other data or options than these.
  void check_fingerprint(const std::string& saved_hex) const;

 private:
  std::shared_ptr<const EpochStream> stream(std::size_t source, std::uint64_t epoch) const;

  struct CachedStream {
    std::size_t source;
    std::uint64_t epoch;
    std::shared_ptr<const EpochStream> stream;
  };

  std::vector<WeightedSource> sources_;
  SamplerOptions options_;
  Blend blend_;
  std::vector<std::uint64_t> samples_per_epoch_;
  mutable std::mutex mutex_;
  mutable std::deque<CachedStream> cache_;  ///< newest first, two a source at most
};

/// Rows [begin, end) of a global batch that data-parallel rank `dp_rank` of `dp_size` takes: contiguous shares, the first ones
/// one row larger when they do not divide.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
RowRange rows_of_rank(std::int64_t global_rows, int dp_rank, int dp_size);

}  // namespace hadal::data
