// A plan: for each pipeline rank the list of actions of one step. It is data: built from a Request alone, without tensors,
// communicators or clocks, so that it can be proved, priced, drawn and run by code that knows no schedule.
#pragma once

#include <cstdint>
#include <vector>

#include "schedule/action.h"
#include "schedule/placement.h"

namespace hadal::schedule {

enum class Kind : std::uint8_t { kGpipe, kOneFOneB, kInterleaved, kZeroBubbleH1, kZeroBubbleH2, kDualPipeV, kDualPipe };

struct Request {
  Kind kind = Kind::kOneFOneB;
  int ranks = 1;          ///< pipeline ranks, P
  int micro_batches = 1;  ///< of one step on one data-parallel rank, m
  int chunks = 1;         ///< stages per rank of kInterleaved, v; the other kinds fix it themselves
};

using ActionList = std::vector<Action>;

struct Plan {
  Kind kind = Kind::kOneFOneB;
  bool forward_only = false;  ///< evaluation: F alone, no activations kept
  Placement placement;
  std::vector<ActionList> ranks;

  bool operator==(const Plan&) const = default;
};

}  // namespace hadal::schedule
