// A parameter-shaped tensor between one rank that has it whole and the owners of its pieces (flat_layout.h). Elements go straight
// to their place: nothing is staged.
#pragma once

#include <functional>
#include <vector>

#include "comm/communicator.h"
#include "core/tensor.h"
#include "optim/flat_layout.h"

namespace hadal::optim {

/// Memory of a piece of this rank.
using OwnedView = std::function<View(const FlatLayout::Piece&)>;

/// Collective; `full` (on `root` alone) has the elements of all pieces and their dtype.
void gather_pieces(comm::Communicator& comm, const std::vector<FlatLayout::Piece>& pieces, const OwnedView& owned, int root,
                   View full);
void scatter_pieces(comm::Communicator& comm, const std::vector<FlatLayout::Piece>& pieces, const OwnedView& owned, int root,
                    ConstView full);

}  // namespace hadal::optim
