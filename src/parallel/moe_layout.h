// How a MoE layer lies over the ranks of these groups.
#pragma once

#include "nn/moe/moe_layer.h"
#include "parallel/layer_groups.h"

namespace hadal::parallel {

nn::MoeLayout moe_layout(const LayerGroups& groups, const nn::MoeOptions& options);

}  // namespace hadal::parallel
