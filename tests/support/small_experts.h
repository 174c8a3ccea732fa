// MoE layers of small widths over ranks: options, and the gradients of all ranks.
#pragma once

#include "comm/communicator.h"
#include "nn/moe/moe_layer.h"
#include "tests/support/shard_checks.h"

namespace hadal::test {

/// f64, experts of width 4, the default router, no shared expert.
nn::MoeOptions small_moe(std::int64_t hidden_size, std::int64_t num_experts);
/// The same with V2's router: softmax, the two best of four groups, three experts.
nn::MoeOptions small_v2_moe(std::int64_t hidden_size, std::int64_t num_experts);

/// Adds the gradients of every rank's parameters to `sum`, which the ranks of a local group share, in the order of the ranks, as a
/// reduction would. Collective.
void add_gradients_of_ranks(LogicalTensors& sum, const nn::ParameterList& parameters, comm::Communicator& world);

}  // namespace hadal::test
