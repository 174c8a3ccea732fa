// How a MoE layer lies over the ranks of these groups.
#pragma once

#include "nn/moe/moe_layer.h"
#include "parallel/expert_dispatch.h"
#include "parallel/layer_groups.h"
#include "parallel/room_dispatch.h"

namespace hadal::parallel {

/// One serves all layers; null where all experts lie on one rank. Collective over groups.experts.
std::shared_ptr<ExpertDispatch> make_expert_dispatch(const LayerGroups& groups, std::int64_t num_experts);

/// For training, where groups.expert_capacity asks for it; null elsewhere. `device`: of the rows. Collective as above.
std::shared_ptr<RoomDispatch> make_room_dispatch(const LayerGroups& groups, std::int64_t num_experts, Device device);

nn::MoeLayout moe_layout(const LayerGroups& groups);

}  // namespace hadal::parallel
