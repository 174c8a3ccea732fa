#include "schedule/rank_list.h"

#include "core/error.h"

namespace hadal::schedule {

RankList::RankList(const Placement& placement, int rank) : placement_(placement), rank_(rank) {
  for (int slot = 0; slot < placement.num_slots(); ++slot) forwards_.push_back(placement.first_micro_batch(slot));
  backwards_ = forwards_;
}

Work RankList::next(std::vector<int>& counters, int slot) {
  int& counter = counters.at(static_cast<std::size_t>(slot));
  HADAL_CHECK(counter < placement_.end_micro_batch(slot), "rank {}: no micro-batch left for slot {}", rank_, slot);
  return {slot, placement_.stage_of(rank_, slot), counter++};
}

void RankList::forward(int slot) { actions_.push_back({Op::kForward, next_forward(slot)}); }

void RankList::backward(int slot) { actions_.push_back({Op::kBackward, next_backward(slot)}); }

void RankList::backward_input(int slot) {
  put_off_.push_back(next_backward(slot));
  actions_.push_back({Op::kBackwardInput, put_off_.back()});
}

void RankList::backward_weight() {
  HADAL_CHECK(!put_off_.empty(), "rank {}: no weight gradient was put off", rank_);
  actions_.push_back({Op::kBackwardWeight, put_off_.front()});
  put_off_.pop_front();
}

void RankList::forward_backward(int forward_slot, int backward_slot) {
  const Work forward = next_forward(forward_slot);
  actions_.push_back({Op::kForwardBackward, forward, next_backward(backward_slot)});
}

void RankList::all_backward_weights() {
  while (!put_off_.empty()) backward_weight();
}

}  // namespace hadal::schedule
