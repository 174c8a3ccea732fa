// The four attention layers of spec/model.md 3, 8, 9 and appendix B once more, as plain loops in f64 over weights read by their
// published names: the oracle of the attention tests. Shares no code with the layers.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/attention/make_attention.h"
#include "tests/support/attention_options.h"

namespace hadal::test {

/// y [batch*S, d] for x [batch*S, d]; every sequence starts at position 0.
Tensor reference_attention(const nn::AttentionOptions& options, const std::string& prefix, const nn::ParameterList& parameters,
                           ConstView x, std::int64_t batch);

/// A layer with generic weights, and all that its tests need around it.
struct AttentionCase {
  explicit AttentionCase(const nn::AttentionOptions& layer_options, double std = 0.4);

  nn::AttentionOptions options;
  std::unique_ptr<nn::Attention> layer;
  nn::ParameterList parameters;
  Stream stream;

  nn::Parameter& parameter(const std::string& name_end) const;
  /// Inference over whole sequences.
  Tensor forward(ConstView x, std::int64_t batch = 1);
};

}  // namespace hadal::test
