// The pass that makes lists of compute complete: sends and receives between the ranks, with their peers.
//
// A send starts right after the action that produced its tensor. A receive is posted one compute action ahead of the one that
// consumes it, so that the transfer has that long to hide in, and never later than a receive that the peer sends after it:
// on both ends of a pair of ranks the transfers of one direction have the same order, which also suits transports without
// tags. Neither kind blocks, so a plan whose computations can be ordered cannot deadlock. Neighbouring stages on one rank
// (the turn of a V, P = 1) need no transfer.
#pragma once

#include "schedule/plan.h"

namespace hadal::schedule {

/// `plan` must have no transfers yet.
void add_transfers(Plan& plan);

}  // namespace hadal::schedule
