// The selected blocks turned around: for every sequence, selection group and block, the tokens that read it, ascending
// (spec/model.md 8.5). O(B S n) memory.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"
#include "kernels/cuda/nsa_views.cuh"

namespace hadal::kernels::cuda {

/// What kernels read: list (b, group, block) is entries[begin(..)] .. entries[end(..)). An entry is a token, counted inside the sequence, and
/// in its low bits the place of the block in the token's own list.
struct BlockListsView {
  const std::int32_t* starts;  ///< [B, Gs, blocks, pieces]: where the tokens of a piece of the sequence begin; one more at the end
  const std::int32_t* entries;
  int groups, blocks, pieces, place_bits;
  int first_piece, last_piece;  ///< of the tokens that are meant

  __device__ int token(int entry) const { return entry >> place_bits; }
  __device__ int place(int entry) const { return entry & ((1 << place_bits) - 1); }

  __device__ std::int64_t list(std::int64_t b, int group, int block) const {
    return ((b * groups + group) * blocks + block) * static_cast<std::int64_t>(pieces);
  }
  __device__ int begin(std::int64_t b, int group, int block) const { return starts[list(b, group, block) + first_piece]; }
  __device__ int end(std::int64_t b, int group, int block) const { return starts[list(b, group, block) + last_piece]; }
};

/// Owns the lists. Blocks behind a token's position are left out: it sees nothing of them.
class BlockLists {
 public:
  BlockLists(Stream& stream, const SelectedSizes& sizes, const std::int32_t* blocks);
  BlockListsView view() const;
  /// Of tokens [first, last) of every sequence: multiples of BlockListSizes::tokens_of_piece, or the end.
  BlockListsView view(std::int64_t first, std::int64_t last) const;

 private:
  Tensor starts_, entries_;
  int groups_, blocks_, pieces_, place_bits_;
  std::int64_t tokens_of_piece_;
};

}  // namespace hadal::kernels::cuda
