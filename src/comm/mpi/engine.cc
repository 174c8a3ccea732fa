#include "comm/mpi/engine.h"

#include <sched.h>

#include <algorithm>

namespace hadal::comm::mpi {
namespace {

/// Polls before the core is yielded: about the time of a small message.
constexpr int kSpins = 100;

}  // namespace

Engine& engine() {
  static Engine instance;
  return instance;
}

void Engine::progress() {
  for (std::size_t at = 0; at < operations_.size();) {
    const std::shared_ptr<Operation> operation = operations_[at];
    if (operation->advance()) {
      operations_.erase(operations_.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      ++at;
    }
  }
}

void Engine::wait(const Operation& operation) {
  const auto pending = [&] {
    return std::ranges::any_of(operations_, [&](const auto& other) { return other.get() == &operation; });
  };
  for (int spin = 0; pending(); ++spin) {
    progress();
    if (spin >= kSpins) sched_yield();
  }
}

void Engine::abandon(const Operation& operation) {
  const auto found = std::ranges::find_if(operations_, [&](const auto& other) { return other.get() == &operation; });
  if (found == operations_.end()) return;
  abandoned_.push_back(std::move(*found));
  operations_.erase(found);
}

}  // namespace hadal::comm::mpi
