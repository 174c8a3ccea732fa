// The ledgers of several ranks as text, for whoever looks into a hang.
#pragma once

#include <span>
#include <string>

#include "comm/diagnosis.h"

namespace hadal::comm {

/// A table of the ranks (state, step, place, the call they wait in), then the last calls of each, newest first.
std::string report_of(std::span<const RankView> ranks);

}  // namespace hadal::comm
