// Threads of one rank among the ranks of its host.
#pragma once

#include <cstdint>

#include "comm/communicator.h"

namespace hadal::cli {

/// As configured (> 0), or an equal share of the cores that this rank may use together with the ranks that may use the very same
/// ones: a launcher that binds gives each rank cores of its own, one that does not gives all ranks of a host the same set. Collective.
int threads_of_rank(std::int64_t configured, comm::Communicator& world);

}  // namespace hadal::cli
