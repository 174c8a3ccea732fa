// Sums over ranks of what a model rounds: terms in bf16 are added in f32, and the sum is rounded once.
#pragma once

#include "comm/communicator.h"
#include "core/stream.h"

namespace hadal::parallel {

/// comm::Communicator::reduce_scatter_sum for any float dtype: `all` is size() equal parts, mine = the sum over ranks of part rank(),
/// and may be that part of `all`.
void reduce_scatter_sum(Stream& stream, comm::Communicator& comm, ConstView all, View mine);

}  // namespace hadal::parallel
