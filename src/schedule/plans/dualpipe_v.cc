// The V: micro-batches go down through slots 0 and up through slots 1, so first and last stage are both on rank 0.
#include <fmt/core.h>

#include "schedule/plans/eight_steps.h"
#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void dualpipe_v(RankList& list) {
  const int ranks = list.num_ranks();
  eight_steps(list, {.slot = {0, 1},
                     .inner = ranks - 1 - list.rank(),
                     .outer = list.rank(),
                     .pairs = list.num_micro_batches() - 2 * ranks + list.rank() + 1});
}

std::string refuse_dualpipe_v(const Request& request) {
  if (request.micro_batches >= 2 * request.ranks) return "";
  return fmt::format(
      "dualpipe_v on {} pipeline ranks needs at least {} micro-batches, got {}: take more of them (a larger global "
      "batch or smaller micro-batches), or the schedule zb_h1",
      request.ranks, 2 * request.ranks, request.micro_batches);
}

}  // namespace hadal::schedule::plans
