// Work of the kernels of nsa_heads.h: the lists of nsa_index.cuh cut into pieces, so that the first block, which everybody reads, keeps
// many multiprocessors busy; and the room for their partial results.
#pragma once

#include "core/tensor.h"
#include "kernels/cuda/nsa_index.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kMostSharing = 8;  ///< heads of a key head and a selection that go this way
inline constexpr int kHeadTile = 64;    ///< queries, and keys, of a tile
/// Partial results at a time: heads go in turns of so many bytes, or one by one where a single head has more.
inline constexpr std::int64_t kMostPartialBytes = std::int64_t{512} << 20;

inline int key_tiles_of(const SelectedSizes& sizes) { return (sizes.select_block + kHeadTile - 1) / kHeadTile; }

/// Whether the path of nsa_heads.h is meant for these heads.
inline bool is_key_major(const SelectedSizes& sizes) {
  return sizes.heads_per_key() <= kMostSharing || sizes.heads_per_group() <= kMostSharing;
}

/// Queries entries[begin] .. entries[begin + rows) of the lists, which read `block` of a sequence: piece `number` of `parts` of its list.
/// Every block has one, if without queries.
struct alignas(16) HeadPiece {
  std::int32_t sequence, block, begin, rows;
  std::int32_t number, parts;
  std::int32_t slot;  ///< of the pieces of the group's lists that are cut, which one this is
};

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
