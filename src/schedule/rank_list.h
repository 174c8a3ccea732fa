// The pen that the schedules write with: one rank's list, with a counter per slot for the next micro-batch of each kind of
// work and a queue of weight gradients that were put off. A schedule only says "F of this slot, now".
#pragma once

#include <deque>
#include <vector>

#include "schedule/plan.h"

namespace hadal::schedule {

class RankList {
 public:
  RankList(const Placement& placement, int rank);

  int rank() const { return rank_; }
  int num_ranks() const { return placement_.num_ranks(); }
  int num_slots() const { return placement_.num_slots(); }
  int num_micro_batches() const { return placement_.num_micro_batches(); }

  /// F of the slot's next micro-batch.
  void forward(int slot);
  /// B of the slot's next micro-batch.
  void backward(int slot);
  /// I of the slot's next micro-batch; its W is put off.
  void backward_input(int slot);
  /// The oldest W that was put off.
  void backward_weight();
  /// F of one slot and B of another (or the same), overlapped.
  void forward_backward(int forward_slot, int backward_slot);
  /// Every W that is still put off.
  void all_backward_weights();

  ActionList take() { return std::move(actions_); }

 private:
  Work next(std::vector<int>& counters, int slot);
  Work next_forward(int slot) { return next(forwards_, slot); }
  Work next_backward(int slot) { return next(backwards_, slot); }

  const Placement& placement_;
  int rank_;
  std::vector<int> forwards_;   // next micro-batch, by slot
  std::vector<int> backwards_;  // next micro-batch, by slot
  std::deque<Work> put_off_;
  ActionList actions_;
};

}  // namespace hadal::schedule
