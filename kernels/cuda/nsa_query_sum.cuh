// d_q = scale * d_s k over selected blocks, from the d_s that the keys' gradient has kept.
#pragma once

#include <cstdint>

#include "core/stream.h"
#include "kernels/cuda/nsa_key_rows.cuh"

namespace hadal::kernels::cuda {

inline constexpr std::int64_t kMostScoreBytes = std::int64_t{1} << 30;

/// Bytes of d_s of one key head's queries, `tokens` of each sequence, over all their blocks.
inline std::int64_t score_bytes(const SelectedSizes& sizes, std::int64_t tokens) {
  return sizes.batch * tokens * sizes.heads_per_key() * sizes.chosen * sizes.select_block * static_cast<std::int64_t>(sizeof(bf16));
}
/// How many key heads, and tokens of them, are done at once, so that their d_s fit into kMostScoreBytes.
struct ScoreTurns {
  bool keeps;  ///< false: d_s is not kept, as heads do not come by 16 or several sequences are too long; all is done at once
  int key_heads;
  std::int64_t tokens;  ///< all, or of the only sequence a multiple of tokens_of_list_piece

  explicit ScoreTurns(const SelectedSizes& sizes) : keeps(true), key_heads(sizes.key_heads), tokens(sizes.tokens) {
    const std::int64_t of_head = score_bytes(sizes, sizes.tokens);
    if (HeadSegments(sizes).size % kGroupRows != 0 || sizes.select_block % 16 != 0 || of_head == 0) {
      keeps = false;
    } else if (of_head <= kMostScoreBytes) {
      if (kMostScoreBytes / of_head < key_heads) key_heads = static_cast<int>(kMostScoreBytes / of_head);
    } else {
      const std::int64_t piece = tokens_of_list_piece(sizes), fit = kMostScoreBytes / score_bytes(sizes, 1) / piece * piece;
      keeps = sizes.batch == 1 && fit > 0;
      if (keeps) {
        key_heads = 1;
        tokens = fit;
      }
    }
  }
};

/// d_q of the heads whose d_s are in `scores`; kWidth, kShared as visit_widths names them.
template <int kWidth, int kShared>
void query_sum(Stream& stream, const SelectedInputs<bf16>& in, const ScoreGradients& scores, HeadRows<bf16> d_q);

}  // namespace hadal::kernels::cuda
