// Twice the warm-up of H1, so that no rank waits between its first and its last action when F = I = W.
#include <algorithm>

#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void zero_bubble_h2(RankList& list) {
  const int m = list.num_micro_batches();
  const int warm_up = std::min(2 * (list.num_ranks() - 1 - list.rank()), m);
  const int lag = 2 * list.rank();
  for (int k = 0; k < warm_up; ++k) list.forward(0);
  for (int k = 0; k < m; ++k) {
    if (warm_up + k < m) list.forward(0);
    list.backward_input(0);
    if (k >= lag) list.backward_weight();
  }
  list.all_backward_weights();
}

}  // namespace hadal::schedule::plans
