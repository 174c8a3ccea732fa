// The attention layer that the options name: MLA or GQA, dense or sparse.
#pragma once

#include <memory>
#include <string>

#include "nn/attention/attention.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/selection_sum.h"
#include "nn/rope.h"

namespace hadal::nn {

/// Rotation table of these options; one table serves all layers of a model.
std::shared_ptr<const RopeTable> make_rope_table(const AttentionOptions& options);

/// `prefix` such as "model.layers.3.self_attn" heads the parameters' names (spec/interop.md 3.1, 7.3).
/// `selection_sum` is needed where options.ranks_per_select_group() > 1. Impossible sizes are a UserError.
std::unique_ptr<Attention> make_attention(const AttentionOptions& options, const std::string& prefix,
                                          std::shared_ptr<const RopeTable> rope,
                                          std::shared_ptr<const SelectionSum> selection_sum = nullptr);

}  // namespace hadal::nn
