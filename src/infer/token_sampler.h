// Choosing the next token from logits: temperature, top-k, top-p. Draws are a pure function of (seed, position).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"

namespace hadal::infer {

struct SamplingOptions {
  double temperature = 1.0;   ///< 0: the greatest logit, ties to the lower id
  std::int64_t top_k = 0;     ///< 0: all
  double top_p = 1.0;         ///< smallest set of tokens whose probabilities reach top_p
  std::uint64_t seed = 1;
};

/// Probabilities over the vocabulary after temperature, top-k and top-p; zero outside the kept set. One-hot at temperature 0.
std::vector<double> probabilities(ConstView logits_row, const SamplingOptions& options);

class TokenSampler {
 public:
  explicit TokenSampler(const SamplingOptions& options);

  /// Token from `p` with the draw number `draw` of position `position`. Draws of a position are independent.
  std::int32_t sample(std::span<const double> p, std::uint64_t position, std::uint64_t draw = 0) const;
  /// Uniform in [0, 1): acceptance of a draft (speculative decoding).
  double uniform(std::uint64_t position, std::uint64_t draw) const;
  const SamplingOptions& options() const { return options_; }

 private:
  SamplingOptions options_;
  Random random_;
};

}  // namespace hadal::infer
