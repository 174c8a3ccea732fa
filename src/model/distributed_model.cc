#include "model/distributed_model.h"

#include <algorithm>
#include <set>

#include "parallel/moe_layout.h"
#include "parallel/selection_sum.h"

namespace hadal::model {
namespace {

using ReplicaKey = parallel::RankGroups::ReplicaKey;

/// Pipeline ranks that hold any stage for which `needs` is true, ascending.
template <class Needs>
std::vector<std::int64_t> holders(const std::vector<StageContent>& layout, const StagePlacement& placement, Needs&& needs) {
  std::set<std::int64_t> ranks;
  for (std::size_t s = 0; s < layout.size(); ++s) {
    if (needs(layout[s])) ranks.insert(placement.pp_ranks[s].begin(), placement.pp_ranks[s].end());
  }
  return {ranks.begin(), ranks.end()};
}

/// With what all layers share. Collective over tp and the expert group.
parallel::LayerGroups layer_groups(const ModelOptions& options, const parallel::RankGroups& groups,
                                   std::shared_ptr<parallel::RoomDispatch>& room_dispatch) {
  parallel::LayerGroups result = groups.layer_groups();
  result.dispatch = parallel::make_expert_dispatch(result, options.shape.moe.num_experts);
  room_dispatch = parallel::make_room_dispatch(result, options.shape.moe.num_experts, options.device);
  result.training_dispatch = room_dispatch;
  if (result.tp == nullptr) return result;
  for (std::int64_t i = 0; i < options.shape.num_layers + options.shape.mtp.depth && !result.selection; ++i) {
    nn::AttentionOptions attention = attention_options(options, i);
    attention.heads = result.tensor();
    if (attention.nsa) result.selection = parallel::make_selection_sum(*result.tp, attention);
  }
  return result;
}

}  // namespace

DistributedModel::DistributedModel(const ModelOptions& options, const std::vector<StageContent>& layout, const StagePlacement& placement,
                                   parallel::RankGroups& groups)
    : options_(options), tables_(options, groups.layer_groups()) {
  const parallel::LayerGroups stage_groups = layer_groups(options, groups, room_dispatch_);
  for (const std::int64_t stage : placement.slots) {
    stages_.push_back(std::make_unique<Stage>(options, layout[static_cast<std::size_t>(stage)], stage_groups, tables_));
  }
  // By stage, not by slot: ranks that hold the same stages in other slots (DualPipe) list them alike.
  std::vector<std::size_t> slots(stages_.size());
  for (std::size_t slot = 0; slot < slots.size(); ++slot) slots[slot] = slot;
  std::ranges::sort(slots, {}, [&](std::size_t slot) { return placement.slots[slot]; });

  const auto embedding_holders = holders(layout, placement, [](const StageContent& stage) { return stage.needs_embedding(); });
  const auto head_holders = holders(layout, placement, [](const StageContent& stage) { return stage.needs_head(); });
  std::vector<ReplicaKey> keys;
  for (const std::size_t slot : slots) {
    Stage& stage = *stages_[slot];
    const std::vector<std::int64_t>& stage_holders = placement.pp_ranks[static_cast<std::size_t>(placement.slots[slot])];
    for (nn::Parameter* parameter : stage.parameters()) {
      if (std::ranges::find(parameters_, parameter) != parameters_.end()) continue;
      parameters_.push_back(parameter);
      const bool is_embedding = stage.content().needs_embedding() && parameter == &stage.embedding().weight();
      const bool is_head = stage.content().needs_head() && parameter == &stage.head().weight();
      keys.emplace_back(is_embedding ? embedding_holders : is_head ? head_holders : stage_holders, parameter->options().replication);
      const bool first_copy = groups.grid().replica_group(groups.world().rank(), parameter->options().replication, keys.back().first).front() ==
                              groups.world().rank();
      if (!parameter->options().trainable && first_copy) owned_buffers_.push_back(parameter);
    }
    for (const Stage::PlacedMoe& moe : stage.moe_layers()) moe_layers_.push_back(moe);
  }
  communicators_ = groups.replica_groups(keys);
  for (auto& [key, communicator] : communicators_) {
    ReplicaGroup group{communicator.get(), {}};
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == key && parameters_[i]->options().trainable) group.parameters.push_back(parameters_[i]);
    }
    // Ranks meet the two tables in different orders: a stage with the head alone may come before one that needs both for MTP.
    std::ranges::stable_sort(group.parameters, {}, [&](const nn::Parameter* parameter) { return tables_.order_of(*parameter); });
    if (!group.parameters.empty()) replica_groups_.push_back(std::move(group));
  }
}

void DistributedModel::initialize(std::uint64_t seed) {
  for (nn::Parameter* parameter : parameters_) parameter->initialize(seed);
}

void DistributedModel::hold_selection(bool hold) {
  for (auto& stage : stages_) stage->hold_selection(hold);
}

}  // namespace hadal::model
