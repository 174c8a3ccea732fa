#include "cli/rank_threads.h"

#include <algorithm>
#include <thread>

#include "comm/launcher.h"
#include "core/parallel_for.h"

namespace hadal::cli {

int threads_of_rank(std::int64_t configured) {
  if (configured > 0) return static_cast<int>(configured);
  const int cores = available_cores();
  const int local_ranks = comm::detect_launcher().local_size.value_or(1);
  // A launcher that binds gives each rank cores of its own; one that does not leaves every rank the whole machine.
  const bool bound = cores < static_cast<int>(std::thread::hardware_concurrency());
  return bound ? cores : std::max(1, cores / local_ranks);
}

}  // namespace hadal::cli
