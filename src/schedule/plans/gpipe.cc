#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void gpipe(RankList& list) {
  for (int k = 0; k < list.num_micro_batches(); ++k) list.forward(0);
  for (int k = 0; k < list.num_micro_batches(); ++k) list.backward(0);
}

}  // namespace hadal::schedule::plans
