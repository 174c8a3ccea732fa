#include "optim/piece_transfer.h"

#include <cstring>

#include "core/error.h"

namespace hadal::optim {
namespace {

constexpr int kTag = 0;

/// Elements of `piece` in the whole.
template <class AnyView>
AnyView part_of(AnyView full, const FlatLayout::Piece& piece) {
  return full.reshape(Shape{full.numel()}).rows(piece.parameter_begin, piece.parameter_begin + piece.numel);
}

void check_whole(ConstView full, const std::vector<FlatLayout::Piece>& pieces) {
  const std::int64_t numel = pieces.back().parameter_begin + pieces.back().numel;
  HADAL_CHECK(full.numel() == numel, "{} elements for a parameter of {}", full.numel(), numel);
}

void copy(ConstView from, View to) {
  HADAL_CHECK(from.dtype == to.dtype && from.numel() == to.numel(), "{} x {} to {} x {}", from.numel(), name_of(from.dtype),
              to.numel(), name_of(to.dtype));
  std::memcpy(to.data, from.data, to.bytes());
}

}  // namespace

void gather_pieces(comm::Communicator& comm, const std::vector<FlatLayout::Piece>& pieces, const OwnedView& owned, int root,
                   View full) {
  const bool here = comm.rank() == root;
  if (here) check_whole(full, pieces);
  for (const FlatLayout::Piece& piece : pieces) {
    if (here && piece.owner == root) {
      copy(owned(piece), part_of(full, piece));
    } else if (here) {
      comm.receive(part_of(full, piece), piece.owner, kTag);
    } else if (piece.owner == comm.rank()) {
      comm.send(owned(piece), root, kTag);
    }
  }
}

void scatter_pieces(comm::Communicator& comm, const std::vector<FlatLayout::Piece>& pieces, const OwnedView& owned, int root,
                    ConstView full) {
  const bool here = comm.rank() == root;
  if (here) check_whole(full, pieces);
  for (const FlatLayout::Piece& piece : pieces) {
    if (here && piece.owner == root) {
      copy(part_of(full, piece), owned(piece));
    } else if (here) {
      comm.send(part_of(full, piece), piece.owner, kTag);
    } else if (piece.owner == comm.rank()) {
      comm.receive(owned(piece), root, kTag);
    }
  }
}

}  // namespace hadal::optim
