// Threads of one rank among the ranks of its host.
#pragma once

#include <cstdint>

namespace hadal::cli {

/// As configured (> 0), or this rank's share of the cores that the ranks of this host may use.
int threads_of_rank(std::int64_t configured);

}  // namespace hadal::cli
