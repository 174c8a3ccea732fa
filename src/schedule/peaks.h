// What a rank must hold at most, counted from its list alone: it does not depend on timing.
#pragma once

#include <vector>

#include "schedule/plan.h"

namespace hadal::schedule {

/// By rank: most (stage, micro-batch) pairs whose activations are alive at once. F acquires one, W (or B) releases it; with
/// forward_only F itself does.
std::vector<int> peak_activations(const Plan& plan);

/// By rank: most tensors alive at once between stages, those that are being received or wait for their consumer, and sent ones
/// until their release.
std::vector<int> peak_messages(const Plan& plan);

}  // namespace hadal::schedule
