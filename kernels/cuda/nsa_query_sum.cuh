// d_q = scale * d_s k over selected blocks, from the d_s that the keys' gradient has kept.
#pragma once

#include <cstdint>

#include "core/stream.h"
#include "kernels/cuda/nsa_key_rows.cuh"

namespace hadal::kernels::cuda {

inline constexpr std::int64_t kMostScoreBytes = std::int64_t{1} << 30;

/// Bytes of d_s of one key head's queries over all their blocks.
inline std::int64_t score_bytes(const SelectedSizes& sizes) {
  return sizes.batch * sizes.tokens * sizes.heads_per_key() * sizes.chosen * sizes.select_block * static_cast<std::int64_t>(sizeof(bf16));
}
/// Key heads whose d_s fit into kMostScoreBytes; 0: d_s is not kept, as heads do not come by 16, or there are too many.
inline int key_heads_at_once(const SelectedSizes& sizes) {
  if (HeadSegments(sizes).size % kGroupRows != 0 || sizes.select_block % 16 != 0 || sizes.tokens == 0) return 0;
  const std::int64_t count = kMostScoreBytes / score_bytes(sizes);
  return static_cast<int>(count < sizes.key_heads ? count : sizes.key_heads);
}

/// d_q of the heads whose d_s are in `scores`; kWidth, kShared as visit_widths names them.
template <int kWidth, int kShared>
void query_sum(Stream& stream, const SelectedInputs<bf16>& in, const ScoreGradients& scores, HeadRows<bf16> d_q);

}  // namespace hadal::kernels::cuda
