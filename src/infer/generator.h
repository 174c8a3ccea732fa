// Generation of one sequence against the latent caches, optionally with the MTP module as the draft of speculative decoding.
//
// Speculation (depth 1): after token t_i is chosen, MTP drafts t_{i+1} from q; the next pass runs both tokens through the main model
// and keeps the draft with probability min(1, p/q), else draws from max(p - q, 0) normalised: the distribution stays p
// (at temperature 0: the same tokens).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "infer/token_sampler.h"
#include "model/model.h"

namespace hadal::infer {

struct GenerateOptions {
  SamplingOptions sampling;
  std::int64_t max_tokens = 256;
  bool speculate = false;
};

struct GenerateResult {
  std::vector<std::int32_t> tokens;   ///< without the prompt
  double seconds = 0;                 ///< of decoding, the prompt's prefill apart
  double prefill_seconds = 0;
  double cache_bytes_per_token = 0;   ///< over all layers at the end
  std::int64_t drafts = 0;
  std::int64_t accepted = 0;
};

class Generator {
 public:
  /// `model` outlives the generator.
  explicit Generator(model::Model& model) : model_(model) {}

  /// `on_token` sees each token as it is final and returns false to stop. Prompt and result together fit max_positions (UserError).
  GenerateResult generate(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                          const std::function<bool(std::int32_t)>& on_token);

 private:
  model::Model& model_;
};

}  // namespace hadal::infer
