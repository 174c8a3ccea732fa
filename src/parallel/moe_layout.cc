#include "parallel/moe_layout.h"

namespace hadal::parallel {

nn::MoeLayout moe_layout(const LayerGroups& groups, const nn::MoeOptions&) {
  return {.experts = groups.expert, .width = groups.expert_width, .exchange = nullptr, .sequence_counts = nullptr};
}

}  // namespace hadal::parallel
