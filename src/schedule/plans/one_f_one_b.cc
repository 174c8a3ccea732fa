#include <algorithm>

#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void one_f_one_b(RankList& list) {
  const int m = list.num_micro_batches();
  const int warm_up = std::min(list.num_ranks() - 1 - list.rank(), m);
  for (int k = 0; k < warm_up; ++k) list.forward(0);
  for (int k = 0; k < m - warm_up; ++k) {
    list.forward(0);
    list.backward(0);
  }
  for (int k = 0; k < warm_up; ++k) list.backward(0);
}

}  // namespace hadal::schedule::plans
