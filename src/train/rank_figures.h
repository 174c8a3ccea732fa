// Figures of which every rank has its own, over all ranks.
#pragma once

#include "comm/communicator.h"
#include "report/metrics_row.h"

namespace hadal::train {

/// Adds to a row that has this rank's "memory_bytes" and "waited_share": "memory_bytes_max", of the rank that has most, and
/// "waited_share_mean". Nothing in a world of one rank. Collective.
void add_rank_figures(report::MetricsRow& row, comm::Communicator& world);

}  // namespace hadal::train
