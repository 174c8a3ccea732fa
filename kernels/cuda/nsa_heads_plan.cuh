// Work of the kernels of nsa_heads.h: the lists of nsa_index.cuh cut into pieces, so that the first block, which everybody reads, keeps
// many multiprocessors busy; and the room for their partial results.
#pragma once

#include "core/tensor.h"
#include "kernels/cuda/nsa_index.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kHeadTile = static_cast<int>(kHeadTileRows);  ///< queries, and keys, of a tile

inline int key_tiles_of(const SelectedSizes& sizes) { return (sizes.select_block + kHeadTile - 1) / kHeadTile; }

/// Queries entries[begin] .. entries[begin + rows) of the lists, which read `block` of a sequence: piece `number` of `parts` of its list.
/// Every block has one, if without queries.
struct alignas(16) HeadPiece {
  std::int32_t sequence, block, begin, rows;
  std::int32_t number, parts;
  std::int32_t slot;  ///< of the pieces of the group's lists that are cut, which one this is
};
static_assert(sizeof(HeadPiece) == kHeadPieceBytes);

/// What kernels read.
struct HeadPiecesView {
  BlockListsView lists;
  const HeadPiece* pieces;     ///< [Gs, most]
  const std::int32_t* counts;  ///< [Gs]
  int most;
};

/// Lists and pieces of an op.
class HeadPieces {
 public:
  /// Pieces of at most `tiles` tiles.
  HeadPieces(Stream& stream, const SelectedSizes& sizes, const std::int32_t* blocks, int tiles);
  /// Upper bounds of a group's pieces, and of those of lists that are cut.
  int most() const { return most_; }
  int most_slots() const { return most_slots_; }
  HeadPiecesView view() const;

 private:
  BlockLists lists_;
  Tensor pieces_, counts_;
  int most_, most_slots_;
};

}  // namespace hadal::kernels::cuda
