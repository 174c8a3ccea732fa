// Which layouts are proved: every split of a number of ranks over the axes, or a covering set of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"

namespace hadal::verify {

/// Every (pp, dp, cp, tp) whose product is `ranks`, with every (ep, etp) that fits, one-hop and two-hop dispatch, and for pp > 1 every
/// schedule. `small` says what the model has to split.
std::vector<ParallelSection> all_layouts(const Config& small, std::int64_t ranks);

/// Few layouts in which every axis is met alone and with every other, every schedule, and both dispatches.
std::vector<ParallelSection> covering_layouts(const Config& small, std::int64_t ranks);

/// "pp 2 (dualpipe_v) dp 2 tp 2 ep 4 etp 1 two-hop".
std::string describe(const ParallelSection& layout, std::int64_t ranks);

}  // namespace hadal::verify
