// Micro-batches go through a rank's chunks in groups of P: chunk 0 for P of them, chunk 1 for the same P, ... Counted through,
// virtual micro-batch k is on chunk (k mod P v) / P; backward visits the chunks in reverse.
#include <fmt/core.h>

#include <algorithm>

#include "schedule/plans/plans.h"

namespace hadal::schedule::plans {

void interleaved(RankList& list) {
  const int ranks = list.num_ranks();
  const int chunks = list.num_slots();
  const int count = list.num_micro_batches() * chunks;
  const auto chunk_of = [&](int k) { return k % (ranks * chunks) / ranks; };

  const int warm_up = std::min(2 * (ranks - 1 - list.rank()) + (chunks - 1) * ranks, count);
  for (int k = 0; k < warm_up; ++k) list.forward(chunk_of(k));
  for (int k = 0; k < count - warm_up; ++k) {
    list.forward(chunk_of(warm_up + k));
    list.backward(chunks - 1 - chunk_of(k));
  }
  for (int k = count - warm_up; k < count; ++k) list.backward(chunks - 1 - chunk_of(k));
}

std::string refuse_interleaved(const Request& request) {
  if (request.chunks < 2) {
    return fmt::format("interleaved needs at least 2 chunks per rank, got {}: set 2 or more, or take the schedule 1f1b",
                       request.chunks);
  }
  const int rest = request.micro_batches % request.ranks;
  if (rest != 0) {
    return fmt::format(
        "interleaved sends micro-batches through in groups of the {} pipeline ranks, and {} is no multiple: take {} "
        "or {} micro-batches",
        request.ranks, request.micro_batches, std::max(request.micro_batches - rest, request.ranks),
        request.micro_batches - rest + request.ranks);
  }
  return "";
}

}  // namespace hadal::schedule::plans
