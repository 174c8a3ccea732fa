// The attention layer that the options name: MLA or GQA, dense or sparse.
#pragma once

#include <memory>
#include <string>

#include "nn/attention/attention.h"
#include "nn/attention/attention_options.h"
#include "nn/rope.h"

namespace hadal::nn {

/// Rotation table of these options; one table serves all layers of a model.
std::shared_ptr<const RopeTable> make_rope_table(const AttentionOptions& options);

/// `prefix` such as "model.layers.3.self_attn" heads the parameters' names (spec/interop.md 3.1, 7.3).
/// Impossible sizes are a UserError.
std::unique_ptr<Attention> make_attention(const AttentionOptions& options, const std::string& prefix,
                                          std::shared_ptr<const RopeTable> rope);

}  // namespace hadal::nn
