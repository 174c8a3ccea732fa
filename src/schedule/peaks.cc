#include "schedule/peaks.h"

#include <algorithm>

#include "schedule/dependency.h"

namespace hadal::schedule {

std::vector<int> peak_activations(const Plan& plan) {
  std::vector<int> peaks;
  for (const ActionList& list : plan.ranks) {
    int alive = 0;
    int peak = 0;
    for (const Action& action : list) {
      alive += runs_forward(action.op) ? 1 : 0;
      peak = std::max(peak, alive);
      alive -= runs_weight(action.op) || (plan.forward_only && runs_forward(action.op)) ? 1 : 0;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

std::vector<int> peak_messages(const Plan& plan) {
  std::vector<int> peaks;
  for (std::size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    const auto local = [&](const Location& other) { return static_cast<std::size_t>(other.rank) == rank; };
    int alive = 0;
    int peak = 0;
    for (const Action& action : plan.ranks[rank]) {
      for (const Edge& edge : outputs_of(plan.placement, action)) alive += local(consumer(plan.placement, edge.message)) ? 1 : 0;
      alive += action.op == Op::kSend || action.op == Op::kReceive ? 1 : 0;
      peak = std::max(peak, alive);
      alive -= action.op == Op::kRelease ? 1 : 0;
      for ([[maybe_unused]] const Edge& edge : inputs_of(plan.placement, action)) --alive;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

}  // namespace hadal::schedule
