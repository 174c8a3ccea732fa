#include "cli/rank_threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "core/parallel_for.h"

namespace hadal::cli {
namespace {

/// Host name and affinity mask: equal for ranks that share their cores.
std::string core_set() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  cpu_set_t mask;
  CPU_ZERO(&mask);
  ::sched_getaffinity(0, sizeof mask, &mask);
  return std::string(host.data()) + '\n' + std::string(reinterpret_cast<const char*>(&mask), sizeof mask);
}

}  // namespace

int threads_of_rank(std::int64_t configured, comm::Communicator& world) {
  const std::string own = core_set();
  const std::vector<std::string> all = world.all_gather(own);
  if (configured > 0) return static_cast<int>(configured);
  const auto sharing = static_cast<int>(std::ranges::count(all, own));
  return std::max(1, available_cores() / std::max(sharing, 1));
}

}  // namespace hadal::cli
