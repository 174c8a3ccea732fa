#include "parallel/moe_layout.h"

#include "parallel/sequence_counts.h"

namespace hadal::parallel {
namespace {

ExpertDispatchOptions dispatch_options(const LayerGroups& groups, std::int64_t num_experts) {
  return {.num_experts = num_experts, .etp = static_cast<int>(groups.expert_width.count), .ranks_per_node = static_cast<int>(groups.ranks_per_node)};
}

}  // namespace

std::shared_ptr<ExpertDispatch> make_expert_dispatch(const LayerGroups& groups, std::int64_t num_experts) {
  if (groups.experts == nullptr) return nullptr;
  return std::make_shared<ExpertDispatch>(*groups.experts, dispatch_options(groups, num_experts));
}

std::shared_ptr<RoomDispatch> make_room_dispatch(const LayerGroups& groups, std::int64_t num_experts, Device device) {
  if (groups.experts == nullptr || groups.expert_capacity == 0) return nullptr;
  return std::make_shared<RoomDispatch>(*groups.experts, dispatch_options(groups, num_experts), groups.expert_capacity, device);
}

nn::MoeLayout moe_layout(const LayerGroups& groups) {
  return {.experts = groups.expert,
          .width = groups.expert_width,
          .exchange = groups.dispatch,
          .training_exchange = groups.training_dispatch,
          .sequence_counts = groups.sequences == nullptr ? nullptr : std::make_shared<GroupSequenceCounts>(*groups.sequences)};
}

}  // namespace hadal::parallel
