#include "parallel/moe_layout.h"

#include "parallel/sequence_counts.h"

namespace hadal::parallel {

std::shared_ptr<ExpertDispatch> make_expert_dispatch(const LayerGroups& groups, std::int64_t num_experts) {
  if (groups.experts == nullptr) return nullptr;
  return std::make_shared<ExpertDispatch>(*groups.experts, ExpertDispatchOptions{.num_experts = num_experts,
                                                                                .etp = static_cast<int>(groups.expert_width.count),
                                                                                .ranks_per_node = static_cast<int>(groups.ranks_per_node)});
}

nn::MoeLayout moe_layout(const LayerGroups& groups) {
  return {.experts = groups.expert,
          .width = groups.expert_width,
          .exchange = groups.dispatch,
          .sequence_counts = groups.sequences == nullptr ? nullptr : std::make_shared<GroupSequenceCounts>(*groups.sequences)};
}

}  // namespace hadal::parallel
