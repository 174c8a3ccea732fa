// The selected blocks turned around: for every sequence, selection group and block, the tokens that read it, ascending
// (spec/model.md 8.5). O(B S n) memory.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"
#include "kernels/cuda/nsa_views.cuh"

namespace hadal::kernels::cuda {

/// What kernels read: tokens of list (b, group, block) are entries[start(..)] .. entries[end(..)), counted inside the sequence.
struct BlockListsView {
  const std::int32_t* starts;  ///< [B, Gs, blocks, pieces]: where the tokens of a piece of the sequence begin; one more at the end
  const std::int32_t* entries;
  int groups, blocks, pieces;

  __device__ std::int64_t list(std::int64_t b, int group, int block) const {
    return ((b * groups + group) * blocks + block) * static_cast<std::int64_t>(pieces);
  }
  __device__ int begin(std::int64_t b, int group, int block) const { return starts[list(b, group, block)]; }
  __device__ int end(std::int64_t b, int group, int block) const { return starts[list(b, group, block) + pieces]; }
};

/// Owns the lists. Blocks behind a token's position are left out: it sees nothing of them.
class BlockLists {
 public:
  BlockLists(Stream& stream, const SelectedSizes& sizes, const std::int32_t* blocks);
  BlockListsView view() const;

 private:
  Tensor starts_, entries_;
  int groups_, blocks_, pieces_;
};

}  // namespace hadal::kernels::cuda
