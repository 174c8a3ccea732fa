// The samplers that a config names.
#pragma once

#include <memory>
#include <optional>

#include "config/config.h"
#include "data/sampler.h"
#include "tokenizer/tokenizer.h"

namespace hadal::train {

struct RunData {
  std::unique_ptr<data::Sampler> training;
  std::unique_ptr<data::Sampler> validation;         ///< null: no validation data
  std::optional<tokenizer::Tokenizer> tokenizer;     ///< when data.tokenizer is set
};

/// Opens every source and checks it against the model's vocabulary and the tokenizer. UserError naming key and file.
RunData open_run_data(const Config& config);
/// A sampler over one file in its own order, each token a target once (validation, `hadal eval`).
std::unique_ptr<data::Sampler> sequential_sampler(const std::vector<data::TokenSourcePtr>& sources, std::int64_t sequence_length);

}  // namespace hadal::train
