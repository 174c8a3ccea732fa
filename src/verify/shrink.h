// A user's config made small enough to be run whole, many times, on this machine: same kinds of layers, same routing, same losses; few
// layers, narrow, short. Every size divides by every degree that `ranks` ranks can have.
#pragma once

#include <cstdint>

#include "config/config.h"

namespace hadal::verify {

/// f64, `ranks` ranks, one micro-batch count for all layouts. `stages`: pipeline stages that must be possible.
Config shrink(const Config& config, std::int64_t ranks, std::int64_t stages);

/// The user's own layout with degrees that multiply to a divisor of `ranks`: axes are halved, the largest first, until they fit.
ParallelSection scale_down(const ParallelSection& parallel, const Config& small, std::int64_t ranks);

}  // namespace hadal::verify
