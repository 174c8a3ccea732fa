// Attention over selected blocks for heads of which few share both a key head and a selection, on tensor cores, key by key: a block of keys
// takes the queries that chose it, 64 at a time, head by head. Queries cannot fill a tile by themselves there, and neighbours' choices
// differ. Each (query, block) gives a partial result, which a second kernel puts together in the order of the query's list.
#pragma once

#include "core/stream.h"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

/// True if it did the work: bf16 heads of a size and alignment that it knows, at most 8 of them to a key head or to a selection.
bool heads_forward(Stream& stream, const NsaSelectedForward& args);
bool heads_backward(Stream& stream, const NsaSelectedBackward& args);

}  // namespace hadal::kernels::cuda
