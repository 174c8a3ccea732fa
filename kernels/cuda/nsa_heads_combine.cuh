// Partial results of the kernels of nsa_heads.h: their room, and how they are put together.
#pragma once

#include <algorithm>

#include "kernels/cuda/nsa_heads_tiles.cuh"

namespace hadal::kernels::cuda {

/// Room for the partial results of some heads; the op goes through the heads in turns, which share it.
class PartialRoom {
 public:
  PartialRoom(Stream& stream, const SelectedSizes& sizes, int width, bool with_lse);

  int heads_of_turn() const { return first_.heads; }
  /// call(HeadPartials) for all heads.
  template <class Call>
  void for_each_turn(const Call& call) const {
    for (HeadPartials now = first_; now.first_head < heads_; now.first_head += first_.heads) {
      now.heads = std::min(first_.heads, heads_ - now.first_head);
      call(now);
    }
  }

 private:
  Tensor rows_, lse_;
  HeadPartials first_;
  int heads_;
};

/// o and lse of the heads of a turn from what each block gave them, in the order of a token's list.
void combine_outputs(Stream& stream, const SelectedInputs<bf16>& in, const HeadPartials& partials, int width, HeadRows<bf16> o, float* lse);
/// The sum of the partial results, to `sum`.
void combine_sums(Stream& stream, const SelectedInputs<bf16>& in, const HeadPartials& partials, int width, HeadRows<bf16> sum);

}  // namespace hadal::kernels::cuda
