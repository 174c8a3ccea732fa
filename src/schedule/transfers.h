// The pass that makes lists of compute complete: sends and receives between the ranks, with their peers.
//
// A send starts right after the action that produced its tensor; releases.h says when that is freed. A receive is posted one
// compute action ahead of the one that consumes it, so that the transfer has that long to hide in, in the order of the peer's
// sends: on both ends of a pair of ranks the transfers of one direction have the same order, which also suits transports
// without tags. A gradient's receive follows the F whose output it belongs to, which knows its shape. Neither kind blocks, so a
// plan whose computations can be ordered cannot deadlock. Neighbouring stages on one rank (the turn of a V, P = 1) need no
// transfer.
#pragma once

#include "schedule/plan.h"

namespace hadal::schedule {

/// `plan` must have no transfers yet.
void add_transfers(Plan& plan);

}  // namespace hadal::schedule
