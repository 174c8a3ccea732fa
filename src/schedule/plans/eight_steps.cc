#include "schedule/plans/eight_steps.h"

namespace hadal::schedule::plans {

void eight_steps(RankList& list, const EightSteps& steps) {
  const auto [phase_0, phase_1] = steps.slot;
  // 1, 2: fill
  for (int i = 0; i < 2 * steps.inner; ++i) list.forward(phase_0);
  for (int i = 0; i < steps.outer + 1; ++i) {
    list.forward(phase_0);
    list.forward(phase_1);
  }
  // 3: the first gradients come back; their weight gradients fill the wait for the next
  for (int i = 0; i < steps.inner; ++i) {
    list.backward_input(phase_1);
    list.backward_weight();
    list.forward(phase_1);
  }
  // 4: the steady state. Where the two phases meet, the first pair is not overlapped: its forward is wanted at once next door.
  for (int i = 0; i < steps.pairs; ++i) {
    if (i == 0 && steps.inner == 0) {
      list.forward(phase_0);
      list.backward(phase_1);
    } else {
      list.forward_backward(phase_0, phase_1);
    }
    list.forward_backward(phase_1, phase_0);
  }
  // 5: phase 0 has no forwards left
  for (int i = 0; i < steps.inner; ++i) {
    list.backward(phase_1);
    list.forward_backward(phase_1, phase_0);
  }
  // 6: from the middle on weight gradients are put off, so that the neighbours get their gradients sooner
  const int middle = (steps.outer + 1) / 2;
  const bool middle_splits_both = steps.outer % 2 == 1;
  bool split = false;
  for (int i = 0; i < steps.outer + 1; ++i) {
    split = split || (i == middle && middle_splits_both);
    split ? list.backward_input(phase_1) : list.backward(phase_1);
    split = split || i == middle;
    split ? list.backward_input(phase_0) : list.backward(phase_0);
  }
  // 7, 8: drain
  for (int i = 0; i < steps.inner; ++i) {
    list.backward_weight();
    list.backward_input(phase_0);
  }
  for (int i = 0; i < steps.outer + 1; ++i) list.backward_weight();
}

}  // namespace hadal::schedule::plans
