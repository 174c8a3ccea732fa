// List scheduling over ticks: at each tick every rank that has work runs one stage of one micro-batch.
#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

std::vector<ActionList> forward_only(const Placement& placement) {
  const int num_ranks = placement.num_ranks();
  const int num_slots = placement.num_slots();
  std::vector<ActionList> lists(static_cast<std::size_t>(num_ranks));
  // Stages that each micro-batch has behind it before this tick, and the next micro-batch of each slot.
  std::vector<int> reached(static_cast<std::size_t>(placement.num_micro_batches()), 0);
  std::vector<std::vector<int>> next(static_cast<std::size_t>(num_ranks));
  for (std::vector<int>& counters : next) {
    for (int slot = 0; slot < num_slots; ++slot) counters.push_back(placement.first_micro_batch(slot));
  }
  int left = placement.num_stages() * placement.num_micro_batches();
  while (left > 0) {
    std::vector<int> finished;
    for (int rank = 0; rank < num_ranks; ++rank) {
      int best = -1;
      for (int slot = 0; slot < num_slots; ++slot) {
        const int micro_batch = next[static_cast<std::size_t>(rank)][static_cast<std::size_t>(slot)];
        const int stage = placement.stage_of(rank, slot);
        if (micro_batch >= placement.end_micro_batch(slot)) continue;
        if (reached[static_cast<std::size_t>(micro_batch)] != stage) continue;
        if (best < 0 || stage > placement.stage_of(rank, best)) best = slot;
      }
      if (best < 0) continue;
      const int micro_batch = next[static_cast<std::size_t>(rank)][static_cast<std::size_t>(best)]++;
      lists[static_cast<std::size_t>(rank)].push_back({Op::kForward, {best, placement.stage_of(rank, best), micro_batch}});
      finished.push_back(micro_batch);
    }
    for (const int micro_batch : finished) ++reached[static_cast<std::size_t>(micro_batch)];
    left -= static_cast<int>(finished.size());
  }
  return lists;
}

}  // namespace hadal::schedule::plans
