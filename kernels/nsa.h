// The parts of native sparse attention that are not ordinary attention (spec/model.md 8, 9, appendix B):
// gated pooling of blocks, block selection from the compressed branch, attention over selected blocks.
// bf16: activations and their gradients (x, logits of the pooling, q, k, k_shared, v, o) are bf16; lse, importance, position and
// d_position are f32, accumulation_dtype of the activations. Sums are held in f32. Deterministic on every device.
#pragma once

#include "kernels/flash_attention.h"
#include "kernels/heads.h"
#include "kernels/op.h"

namespace hadal::kernels {

/// Number of compression blocks over `tokens`: floor((T - l) / d) + 1, 0 when T < l.
inline std::int64_t num_compressed(std::int64_t tokens, std::int64_t block_length, std::int64_t block_stride) {
  return tokens < block_length ? 0 : (tokens - block_length) / block_stride + 1;
}

/// Per channel: alpha[i,j] = softmax_j(logits[i*d+j] + position[j]);  y[i] = sum_j alpha[i,j] x[i*d+j].
/// x, logits [B*S, G, w]; position [l, w], shared by the G groups; y [B*Nc, G, w].
struct NsaCompressForward {
  static constexpr const char* kName = "nsa_compress_forward";
  std::int64_t batch = 1;
  std::int64_t block_length = 0, block_stride = 0;
  ConstHeads x, logits;
  ConstView position;
  Heads y;
};

/// d_logits is overwritten, and so is d_x unless `add_to_x` adds to what it holds; d_position is accumulated.
struct NsaCompressBackward {
  static constexpr const char* kName = "nsa_compress_backward";
  std::int64_t batch = 1;
  std::int64_t block_length = 0, block_stride = 0;
  ConstHeads x, logits;
  ConstView position;
  ConstHeads d_y;
  Heads d_x, d_logits;
  View d_position;
  bool add_to_x = false;
};

/// Top-n selection blocks of each query and selection group (spec/model.md 8.2, 0-based form): importance
/// P[t,g,j] = sum over the heads of g and compressed blocks i of p_cmp[t,h,i] * overlap(i, j) / d, with
/// p_cmp = exp(scale * q.k - lse) recomputed from the compressed branch; blocks 0, b_t and b_t - 1 forced; ties to the lower j.
/// No gradient flows through it. Positions are query_start + t; block b_t = position / select_block.
struct NsaSelect {
  static constexpr const char* kName = "nsa_select";
  std::int64_t batch = 1;
  ConstHeads q;           ///< [B*S, H, w + ws]
  ConstHeads k;           ///< compressed keys [B*Nc, Hk, w]
  ConstHeads k_shared{};  ///< [B*Nc, 1, ws] or undefined
  ConstView lse;          ///< [B*S, H] of the compressed branch
  double scale = 1.0;
  std::int64_t query_start = 0;
  std::int64_t block_length = 0, block_stride = 0, select_block = 0;
  std::int64_t num_groups = 1;  ///< Gs divides H
  View blocks;                  ///< I32 [B*S, Gs, n], ascending, padded with -1
};

/// The importance P of NsaSelect alone, without the forced blocks: for a selection group whose heads lie on several ranks, which
/// add it up before NsaTopBlocks chooses. Other members as in NsaSelect.
struct NsaImportance {
  static constexpr const char* kName = "nsa_importance";
  std::int64_t batch = 1;
  ConstHeads q;
  ConstHeads k;
  ConstHeads k_shared{};
  ConstView lse;
  double scale = 1.0;
  std::int64_t query_start = 0;
  std::int64_t block_length = 0, block_stride = 0, select_block = 0;
  std::int64_t num_groups = 1;
  View importance;  ///< [B*S, Gs, J], J at least the blocks up to the last query's own; zero behind a query's own block
};

/// The choice of NsaSelect from given importance.
struct NsaTopBlocks {
  static constexpr const char* kName = "nsa_top_blocks";
  std::int64_t batch = 1;
  ConstView importance;  ///< [B*S, Gs, J]
  std::int64_t query_start = 0;
  std::int64_t select_block = 0;
  View blocks;  ///< I32 [B*S, Gs, n], ascending, padded with -1
};

/// Attention of query (t, h) over the tokens tau <= position(t) of its group's selected blocks; same q, k, k_shared, v, o, lse as
/// flash attention, over the raw tokens.
struct NsaSelectedForward {
  static constexpr const char* kName = "nsa_selected_forward";
  std::int64_t batch = 1;
  ConstHeads q, k;
  ConstHeads k_shared{};
  ConstHeads v;
  ConstView blocks;  ///< I32 [B*S, Gs, n]
  std::int64_t select_block = 0;
  std::int64_t query_start = 0;
  double scale = 1.0;
  Heads o;
  View lse;
};

/// d_q is overwritten, and so are d_k, d_k_shared, d_v unless `add_to_keys` adds to what they hold.
struct NsaSelectedBackward {
  static constexpr const char* kName = "nsa_selected_backward";
  std::int64_t batch = 1;
  ConstHeads q, k;
  ConstHeads k_shared{};
  ConstHeads v;
  ConstView blocks;
  std::int64_t select_block = 0;
  std::int64_t query_start = 0;
  double scale = 1.0;
  ConstHeads o;
  ConstView lse;
  ConstHeads d_o;
  Heads d_q, d_k;
  Heads d_k_shared{};
  Heads d_v;
  bool add_to_keys = false;
};

void run(Stream& stream, const NsaCompressForward& args);
void run(Stream& stream, const NsaCompressBackward& args);
void run(Stream& stream, const NsaSelect& args);
void run(Stream& stream, const NsaImportance& args);
void run(Stream& stream, const NsaTopBlocks& args);
void run(Stream& stream, const NsaSelectedForward& args);
void run(Stream& stream, const NsaSelectedBackward& args);

}  // namespace hadal::kernels
