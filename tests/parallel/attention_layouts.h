// One attention layer over the ranks of a layout against the same layer on one rank: output, gradient of the input and the
// gradient of every parameter.
#pragma once

#include <functional>
#include <memory>

#include "nn/attention/make_attention.h"
#include "tests/support/attention_options.h"
#include "tests/support/shard_checks.h"

namespace hadal::test {

struct AttentionLayout {
  int cp = 1;
  int tp = 1;
};

/// Faults to plant: what stands between a layer and its exchanges.
struct AttentionFaults {
  std::function<std::unique_ptr<nn::SequenceShard>(const nn::SequenceShard&)> sequence{};  ///< none: the true one
  std::shared_ptr<const nn::SelectionSum> selection_sum{};                                 ///< null: the true one
};

/// Random weights, input and output gradient. Compares "y", "d_x" and every parameter by name within 1e-10.
::testing::AssertionResult attention_equals_one_rank(const nn::AttentionOptions& options, AttentionLayout layout,
                                                     std::int64_t batch, std::int64_t seq, const AttentionFaults& faults = {});

/// small_gqa with four key heads and twice as many heads.
nn::AttentionOptions many_gqa();
/// With small_nsa.
nn::AttentionOptions sparse(nn::AttentionOptions options);

}  // namespace hadal::test
