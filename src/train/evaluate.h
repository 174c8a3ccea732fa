// Loss of a model over held-out text, over all ranks.
#pragma once

#include <cstdint>

#include "comm/communicator.h"
#include "data/sampler.h"
#include "tokenizer/tokenizer.h"
#include "train/run_model.h"

namespace hadal::train {

struct EvaluationResult {
  std::int64_t tokens = 0;       ///< targets that counted
  double loss = 0;               ///< nats per token
  double mtp_loss = 0;           ///< depth 1; 0 without MTP
  double acceptance = 0;         ///< share of depth-1 drafts that are the main model's own choice
  double unigram_entropy = 0;    ///< of the targets' own frequencies, nats per token: what a model without context could reach
  double bits_per_byte = 0;      ///< 0 without a tokenizer
  std::int64_t bytes = 0;        ///< text bytes of the targets; 0 without a tokenizer

  double perplexity() const;
};

/// The first samples of `sampler`, one epoch and `max_tokens` at most, `micro_batch` rows at a time; data-parallel ranks share the rows.
/// A pipeline runs a few micro-batches per stage behind each other; the bits are those of one stage. Collective; every rank has the
/// result.
EvaluationResult evaluate(RunModel& run, Stream& stream, const data::Sampler& sampler, std::int64_t max_tokens, std::int64_t micro_batch,
                          const tokenizer::Tokenizer* tokenizer);

}  // namespace hadal::train
