// The pass that frees what was sent. A tensor must live until its transfer is complete, and a rank that waits for that waits for
// its peer; one that asks every now and then holds an amount of memory that depends on timing. The plan knows better: once a
// message has come back that could only exist after the peer had consumed the tensor (in one step or over other ranks), the
// transfer is complete and waiting for it costs nothing. This pass follows such chains and puts a kRelease at the first
// computation that proves arrival; what nothing proves (the last gradients of a step) is released at the end of the list.
#pragma once

#include "schedule/plan.h"

namespace hadal::schedule {

/// `plan` has its sends and receives (transfers.h, which calls this) and no releases.
void add_releases(Plan& plan);

}  // namespace hadal::schedule
