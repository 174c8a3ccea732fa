// Memory that the CUDA ops take beside their arguments, as functions of sizes alone: what the kernels ask for here is what `hadal plan`
// counts, without a device. Left out is what stays below some MiB at any size: sums of columns, plans of work, counters.
//
// Shape legend as in nsa.h and flash_attention.h; all in elements or rows unless it says bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace hadal::kernels {

/// Of the products of one stream, kept for good.
inline constexpr std::size_t kGemmWorkspaceBytes = std::size_t{32} << 20;

// ------------------------------------------------------------------------------------------------------ linear_cross_entropy.h

/// Elements from row to row of a chunk of logits: whole pieces of 16 bytes.
std::int64_t head_row_elements(std::int64_t columns, DType dtype);
/// Rows of a chunk: equal chunks of whole tiles of a product, as few as 508 MiB allow.
std::int64_t head_chunk_rows(std::int64_t tokens, std::int64_t row_bytes);

// ------------------------------------------------------------------------------------------------------------------------ nsa.h

/// How many queries' importance is held at a time.
struct ImportanceChunk {
  std::int64_t sequences, queries;
};
ImportanceChunk importance_chunk(std::int64_t batch, std::int64_t tokens, std::int64_t groups, std::int64_t blocks);

/// How pooling by tiles cuts `chunks` chunks of 16 tokens of each of `lanes` (sequence, head): runs of `per_run`, at least one, of
/// which neighbours share `lost`.
inline constexpr int kPoolingWarps = 8, kPoolingChannels = 64, kPoolingResident = 2;  ///< chunks of a turn; of a block; blocks of a multiprocessor
struct PoolingRuns {
  std::int64_t per_run, runs;
};
PoolingRuns pooling_runs(std::int64_t lanes, std::int64_t width, std::int64_t chunks, std::int64_t lost);

/// An op over selected blocks; `tokens` and `keys` are those of one sequence.
struct SelectedShape {
  std::int64_t batch, tokens, keys;
  std::int64_t heads, key_heads, groups;
  std::int64_t chosen, select_block;
  std::int64_t key_width, shared_width, value_width;

  std::int64_t heads_per_key() const { return heads / key_heads; }
  std::int64_t heads_per_group() const { return heads / groups; }
  std::int64_t num_blocks() const { return (keys + select_block - 1) / select_block; }
};

/// The lists of tokens by block: counters, and entries.
struct BlockListSizes {
  std::int64_t tokens_of_piece, pieces, counters, entries;
};
BlockListSizes block_list_sizes(const SelectedShape& shape);

/// Few heads share a key head or a selection: the way of cuda/nsa_heads.h.
bool is_key_major(const SelectedShape& shape);

inline constexpr std::int64_t kHeadPieceBytes = 32, kHeadTileRows = 64;
/// Pieces of at most `tiles` tiles of a group's lists, and those of lists that are cut: upper bounds.
struct HeadPieceCounts {
  std::int64_t most, slots;
};
HeadPieceCounts head_piece_counts(const SelectedShape& shape, std::int64_t tiles);
inline constexpr std::int64_t kHeadPieceTiles = 16, kOwnKeysPieceTiles = 64;  ///< the latter where each head has its own keys

/// Heads whose partial results, `width` bf16 (and an f32) a row, are held at a time: 512 MiB, or one head's. Rows are those of a head.
struct HeadTurns {
  std::int64_t heads, rows;
};
HeadTurns head_turns(const SelectedShape& shape, std::int64_t width, bool with_lse);

/// The gradients of the keys of `count` key heads by `tokens` of each sequence: upper bounds of pieces and of partial sums (of outputs that
/// are cut, or of all), `wanted` pieces or so.
struct KeyPieceCounts {
  std::int64_t outputs, tiles, piece_tiles, pieces, slots;
};
KeyPieceCounts key_piece_counts(const SelectedShape& shape, std::int64_t count, std::int64_t tokens, std::int64_t tile_rows, std::int64_t wanted,
                                bool all_partial);
inline constexpr std::int64_t kKeyPieces = 2048, kKeyTileKeys = 64;  ///< of cuda/nsa_key_gradient.cu
/// Rows (token, head) of one of its tiles.
constexpr int key_tile_rows(int width, int value) { return width + value > 256 ? 48 : 64; }
inline constexpr std::int64_t kLatentKeyPieces = 512, kLatentTileKeys = 32, kLatentTileRows = 32;  ///< of cuda/nsa_latent_key_gradient.cu

/// Bytes of d_s of one key head's queries, `tokens` of each sequence, over all their blocks.
std::int64_t score_bytes(const SelectedShape& shape, std::int64_t tokens);
/// How many key heads, and tokens of them, are done at once, so that their d_s fit into 1 GiB.
struct ScoreTurns {
  bool keeps;  ///< false: d_s is not kept, as heads do not come by 16 or several sequences are too long; all is done at once
  std::int64_t key_heads;
  std::int64_t tokens;  ///< all, or of the only sequence a multiple of BlockListSizes::tokens_of_piece
};
ScoreTurns score_turns(const SelectedShape& shape);

}  // namespace hadal::kernels
