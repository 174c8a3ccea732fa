// 1F1B with the backward split: the weight gradients of rank r lag r micro-batches behind, and fill its wait at the end.
#include <algorithm>

#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void zero_bubble_h1(RankList& list) {
  const int m = list.num_micro_batches();
  const int warm_up = std::min(list.num_ranks() - 1 - list.rank(), m);
  for (int k = 0; k < warm_up; ++k) list.forward(0);
  for (int k = 0; k < m - warm_up; ++k) {
    list.forward(0);
    list.backward_input(0);
    if (k >= list.rank()) list.backward_weight();
  }
  for (int k = 0; k < warm_up; ++k) {
    list.backward_input(0);
    list.backward_weight();
  }
  list.all_backward_weights();
}

}  // namespace hadal::schedule::plans
