#include "kernels/cuda_scratch.h"

#include <algorithm>

namespace hadal::kernels {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

std::int64_t up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Heads that share a key head and a selection.
std::int64_t segment_heads(const SelectedShape& shape) { return std::min(shape.heads_per_key(), shape.heads_per_group()); }

}  // namespace

std::int64_t head_row_elements(std::int64_t columns, DType dtype) {
  const std::int64_t piece = 16 / static_cast<std::int64_t>(size_of(dtype));
  return up(columns, piece) * piece;
}

std::int64_t head_chunk_rows(std::int64_t tokens, std::int64_t row_bytes) {
  constexpr std::int64_t kBytes = 508 * kMiB, kStep = 128;
  const std::int64_t fitting = std::max(kBytes / row_bytes / kStep * kStep, kStep);
  const std::int64_t each = up(tokens, up(tokens, fitting));
  return std::min({fitting, up(each, kStep) * kStep, tokens});
}

ImportanceChunk importance_chunk(std::int64_t batch, std::int64_t tokens, std::int64_t groups, std::int64_t blocks) {
  constexpr std::int64_t kBytes = 256 * kMiB;  // enough queries to fill the device several times over
  const std::int64_t fits = std::max<std::int64_t>(kBytes / (groups * static_cast<std::int64_t>(sizeof(float)) * blocks), 64);
  return {std::clamp<std::int64_t>(fits / tokens, 1, batch), std::min(fits, tokens)};
}

PoolingRuns pooling_runs(std::int64_t lanes, std::int64_t width, std::int64_t chunks, std::int64_t lost) {
  // Thread blocks that 132 multiprocessors (a Hopper's) hold at the same time, on any device: the order of sums follows from sizes alone.
  constexpr std::int64_t kAtOnce = 132 * kPoolingResident;
  const std::int64_t wanted = std::max<std::int64_t>(1, kAtOnce / (lanes * up(width, kPoolingChannels)));
  const std::int64_t per_run = up(up(chunks, wanted) + lost, kPoolingWarps) * kPoolingWarps - lost;
  return {per_run, std::max<std::int64_t>(1, up(chunks, per_run))};
}

BlockListSizes block_list_sizes(const SelectedShape& shape) {
  constexpr std::int64_t kLeastTokens = 32;
  // As many counters as entries, about.
  const std::int64_t wanted = std::max(kLeastTokens, shape.num_blocks() / shape.chosen);
  const std::int64_t pieces = std::max<std::int64_t>(1, up(shape.tokens, wanted));
  return {wanted, pieces, shape.batch * shape.groups * shape.num_blocks() * pieces, shape.batch * shape.tokens * shape.groups * shape.chosen};
}

bool is_key_major(const SelectedShape& shape) {
  constexpr std::int64_t kMostSharing = 8;
  return segment_heads(shape) <= kMostSharing;
}

HeadPieceCounts head_piece_counts(const SelectedShape& shape, std::int64_t tiles) {
  const std::int64_t cuts = shape.batch * shape.tokens * shape.chosen / (kHeadTileRows * tiles);
  return {cuts + shape.batch * shape.num_blocks(), 2 * cuts};
}

HeadTurns head_turns(const SelectedShape& shape, std::int64_t width, bool with_lse) {
  constexpr std::int64_t kBytes = 512 * kMiB;
  const std::int64_t rows = shape.batch * shape.tokens * shape.chosen * up(shape.select_block, kHeadTileRows);
  const std::int64_t bytes = rows * (width * static_cast<std::int64_t>(sizeof(Bf16)) + (with_lse ? static_cast<std::int64_t>(sizeof(float)) : 0));
  const std::int64_t turns = up(shape.heads, std::clamp<std::int64_t>(kBytes / bytes, 1, shape.heads));
  return {up(shape.heads, turns), rows};
}

KeyPieceCounts key_piece_counts(const SelectedShape& shape, std::int64_t count, std::int64_t tokens, std::int64_t tile_rows, std::int64_t wanted,
                                bool all_partial) {
  constexpr std::int64_t kLeastRows = 16384;
  const std::int64_t segments = shape.heads / segment_heads(shape) / shape.key_heads, outputs = shape.batch * shape.num_blocks() * count;
  const std::int64_t rows = shape.batch * tokens * count * shape.heads_per_key() * shape.chosen;
  const std::int64_t tiles = rows / tile_rows + outputs * segments;
  const std::int64_t piece_tiles = std::max(kLeastRows / tile_rows, tiles / wanted + 1);
  return {outputs, tiles, piece_tiles, tiles / piece_tiles + outputs, 2 * (tiles / piece_tiles) + (all_partial ? outputs : 0)};
}

std::int64_t score_bytes(const SelectedShape& shape, std::int64_t tokens) {
  return shape.batch * tokens * shape.heads_per_key() * shape.chosen * shape.select_block * static_cast<std::int64_t>(sizeof(Bf16));
}

ScoreTurns score_turns(const SelectedShape& shape) {
  constexpr std::int64_t kBytes = 1024 * kMiB, kRowsAtOnce = 16;
  const ScoreTurns all{false, shape.key_heads, shape.tokens};
  const std::int64_t of_head = score_bytes(shape, shape.tokens);
  if (segment_heads(shape) % kRowsAtOnce != 0 || shape.select_block % 16 != 0 || of_head == 0) return all;
  if (of_head <= kBytes) return {true, std::min(kBytes / of_head, shape.key_heads), shape.tokens};
  const std::int64_t piece = block_list_sizes(shape).tokens_of_piece, fitting = kBytes / score_bytes(shape, 1) / piece * piece;
  return shape.batch == 1 && fitting > 0 ? ScoreTurns{true, 1, fitting} : all;
}

}  // namespace hadal::kernels
