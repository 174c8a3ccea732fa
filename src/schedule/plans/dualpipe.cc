// Two copies of the model, one in each direction; half of the micro-batches enters at either end. The lower and the upper half
// of the ranks mirror each other with the directions exchanged.
#include <fmt/core.h>

#include <algorithm>

#include "schedule/plans/eight_steps.h"
#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void dualpipe(RankList& list) {
  const int ranks = list.num_ranks();
  const bool upper = list.rank() >= ranks / 2;
  const int outer = upper ? ranks - 1 - list.rank() : list.rank();
  eight_steps(list, {.slot = {upper ? 1 : 0, upper ? 0 : 1},
                     .inner = ranks / 2 - 1 - outer,
                     .outer = outer,
                     .pairs = list.num_micro_batches() / 2 - ranks + outer + 1});
}

std::string refuse_dualpipe(const Request& request) {
  if (request.ranks % 2 != 0) {
    return fmt::format(
        "dualpipe pairs each pipeline rank with its mirror and needs an even number of them, got {}: take {} or {}, "
        "or the schedule dualpipe_v",
        request.ranks, std::max(request.ranks - 1, 2), request.ranks + 1);
  }
  if (request.micro_batches % 2 != 0) {
    return fmt::format(
        "dualpipe feeds half of the micro-batches in at each end and needs an even number of them, got {}: take {}",
        request.micro_batches, std::max(request.micro_batches + 1, 2 * request.ranks));
  }
  if (request.micro_batches < 2 * request.ranks) {
    return fmt::format(
        "dualpipe on {} pipeline ranks needs at least {} micro-batches, got {}: take more of them (a larger global "
        "batch or smaller micro-batches), or the schedule zb_h1",
        request.ranks, 2 * request.ranks, request.micro_batches);
  }
  return "";
}

}  // namespace hadal::schedule::plans
