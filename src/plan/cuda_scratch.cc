// The scratch memory of the CUDA kernels on a tape, in the order in which the ops of kernels/cuda take it; sizes from kernels/cuda_scratch.h
// and key_cut.h. bf16 in aligned rows, as models have it: that decides which kernels run.
#include "kernels/cuda_scratch.h"

#include <algorithm>
#include <utility>

#include "kernels/key_cut.h"
#include "plan/kernel_scratch.h"

namespace hadal::plan {
namespace {

using kernels::SelectedShape;

std::int64_t up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Lists of tokens by block, whose making takes the counters twice.
struct BlockLists {
  Held starts, entries;
};
BlockLists block_lists(Tape& tape, const SelectedShape& shape) {
  const kernels::BlockListSizes sizes = kernels::block_list_sizes(shape);
  const Held counts = tape.take(sizes.counters + 1, DType::kI32);
  Held starts = tape.take(sizes.counters + 1, DType::kI32);
  return {std::move(starts), tape.take(sizes.entries, DType::kI32)};
}

Held head_pieces(Tape& tape, const SelectedShape& shape, std::int64_t tiles) {
  return tape.take(shape.groups * kernels::head_piece_counts(shape, tiles).most * kernels::kHeadPieceBytes, DType::kU8);
}

/// Columns of q k and of v that have tensor-core kernels (kernels/cuda/nsa_segments.cuh: visit_widths).
bool has_kernels(const SelectedShape& shape) {
  const std::int64_t key = shape.key_width, shared = shape.shared_width, value = shape.value_width;
  return (key == 128 && (shared == 0 || shared == 64) && value == 128) || (key == 192 && shared == 0 && value == 128) ||
         (key == 64 && shared == 0 && value == 64);
}
bool is_latent(const SelectedShape& shape) {
  return shape.key_heads == 1 && shape.key_width == 512 && shape.shared_width == 64 && shape.value_width == 512;
}

std::int64_t width_of(const SelectedShape& shape) { return shape.key_width + shape.shared_width; }

void own_keys_gradient(Tape& tape, const SelectedShape& shape) {
  const BlockLists lists = block_lists(tape, shape);
  const Held pieces = head_pieces(tape, shape, kernels::kOwnKeysPieceTiles);
  const kernels::HeadTurns turns = kernels::head_turns(shape, width_of(shape), false);
  const Held rows = tape.take(turns.heads * turns.rows * width_of(shape));
  const std::int64_t tiles = up(shape.select_block, kernels::kHeadTileRows) * kernels::kHeadTileRows;
  const std::int64_t slots = kernels::head_piece_counts(shape, kernels::kOwnKeysPieceTiles).slots;
  const Held partial = tape.take_sums(turns.heads * slots * tiles * (width_of(shape) + shape.value_width));
  tape.take_sums(shape.batch * shape.keys * shape.heads * shape.shared_width);
}

void query_gradient(Tape& tape, const SelectedShape& shape) {
  const BlockLists lists = block_lists(tape, shape);
  const Held pieces = head_pieces(tape, shape, kernels::kHeadPieceTiles);
  const kernels::HeadTurns turns = kernels::head_turns(shape, width_of(shape), false);
  tape.touch(turns.heads * turns.rows * width_of(shape));
}

void key_gradient(Tape& tape, const SelectedShape& shape) {
  const BlockLists lists = block_lists(tape, shape);
  const Held shared = tape.take_sums(shape.batch * shape.keys * shape.key_heads * shape.shared_width);
  const kernels::ScoreTurns turns = kernels::score_turns(shape);
  const bool in_turns = turns.tokens < shape.tokens;
  const std::int64_t width = width_of(shape) + shape.value_width, tiles = up(shape.select_block, kernels::kKeyTileKeys) * kernels::kKeyTileKeys;
  const std::int64_t rows = kernels::key_tile_rows(static_cast<int>(width_of(shape)), static_cast<int>(shape.value_width));
  const Held carried = tape.take_sums(in_turns ? shape.batch * shape.keys * width : 0);
  const std::int64_t slots = kernels::key_piece_counts(shape, turns.key_heads, turns.tokens, rows, kernels::kKeyPieces, in_turns).slots;
  const Held partial = tape.take_sums(slots * tiles * width);
  tape.take(turns.keeps ? kernels::score_bytes(shape, turns.tokens) * turns.key_heads : 0, DType::kU8);
}

void latent_gradient(Tape& tape, const SelectedShape& shape) {
  const Held shared = tape.take_sums(shape.batch * shape.keys * shape.shared_width);
  const BlockLists lists = block_lists(tape, shape);
  const std::int64_t tiles = up(shape.select_block, kernels::kLatentTileKeys) * kernels::kLatentTileKeys;
  const std::int64_t slots = kernels::key_piece_counts(shape, 1, shape.tokens, kernels::kLatentTileRows, kernels::kLatentKeyPieces, false).slots;
  const Held partial = tape.take_sums(slots * tiles * (width_of(shape) + shape.value_width));
  tape.take_sums(shape.batch * shape.keys * shape.shared_width);
}

}  // namespace

void head_scratch(Tape& tape, std::int64_t tokens, std::int64_t columns) {
  if (!tape.cuda()) return;
  const std::int64_t row = kernels::head_row_elements(columns, tape.compute());
  tape.touch(kernels::head_chunk_rows(tokens, row * static_cast<std::int64_t>(size_of(tape.compute()))) * row);
}

void cuda_attention_backward_scratch(Tape& tape, const AttentionSizes& s) {
  constexpr std::int64_t kRows = 384;  // lse and delta of a head, padded (kernels/cuda/attention_statistics.h)
  const Held statistics = tape.take_sums(2 * s.batch * s.heads * up(s.queries, kRows) * kRows);
  const Held shared = tape.take_sums(s.key_heads * s.batch * s.keys * s.shared);
  const std::int64_t own = s.width - s.shared;
  if (own > 128 || s.value > 128 || s.shared > 64 || own % 8 != 0 || s.value % 8 != 0 || s.shared % 8 != 0) return;
  const std::int64_t columns = s.width + s.value;
  const kernels::KeyCut cut = kernels::cut_keys({.batch = s.batch,
                                                 .tokens = s.queries,
                                                 .keys = s.keys,
                                                 .heads = s.heads,
                                                 .key_heads = s.key_heads,
                                                 .columns = columns,
                                                 .query_start = s.query_start,
                                                 .window = s.window,
                                                 .block_length = s.block_length,
                                                 .block_stride = s.block_stride},
                                                kernels::key_gradient_queries(kernels::key_gradient_chunks(own, s.shared, s.value)));
  if (cut.count() > 1) tape.take_sums(cut.count() * s.batch * s.keys * s.key_heads * columns);
}

void select_scratch(Tape& tape, std::int64_t batch, std::int64_t queries, std::int64_t groups, std::int64_t blocks) {
  if (!tape.cuda()) return;
  const kernels::ImportanceChunk chunk = kernels::importance_chunk(batch, queries, groups, blocks);
  tape.take_sums(chunk.sequences * chunk.queries * groups * blocks);
}

void selected_scratch(Tape& tape, const SelectedShape& shape) {
  if (!tape.cuda() || !has_kernels(shape) || !kernels::is_key_major(shape)) return;
  const BlockLists lists = block_lists(tape, shape);
  const Held pieces = head_pieces(tape, shape, kernels::kHeadPieceTiles);
  const kernels::HeadTurns turns = kernels::head_turns(shape, shape.value_width, true);
  const Held rows = tape.take(turns.heads * turns.rows * shape.value_width);
  tape.take_sums(turns.heads * turns.rows);
}

void cuda_selected_backward_scratch(Tape& tape, const SelectedShape& shape) {
  const Held delta = tape.take_sums(shape.batch * shape.tokens * shape.heads);
  if (is_latent(shape)) return latent_gradient(tape, shape);
  if (!has_kernels(shape)) {
    const Held shared = tape.take_sums(shape.batch * shape.keys * shape.key_heads * shape.shared_width);
    block_lists(tape, shape);
    return;
  }
  if (kernels::is_key_major(shape)) {
    if (shape.heads_per_key() == 1) return own_keys_gradient(tape, shape);
    query_gradient(tape, shape);
  }
  key_gradient(tape, shape);
}

void pooling_backward_scratch(Tape& tape, std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t length,
                              std::int64_t stride) {
  if (!tape.cuda()) return;
  if (length != 32 || stride != 16 || width % 8 != 0) {
    tape.take_sums(2 * batch * std::max<std::int64_t>(0, (tokens - length) / stride + 1) * heads * width);
    return;
  }
  const kernels::PoolingRuns cut = kernels::pooling_runs(batch * heads, width, up(tokens, stride) - 2, 2);
  tape.take_sums(cut.runs * batch * heads * length * width);
}

void router_scratch(Tape& tape, std::int64_t tokens, std::int64_t experts, std::int64_t width) {
  if (!tape.cuda()) return;
  const Held parts = tape.take(3 * experts * width);
  tape.take_sums(3 * tokens * experts);
}

void router_backward_scratch(Tape& tape, std::int64_t tokens, std::int64_t experts, std::int64_t width) {
  if (!tape.cuda()) return;
  const Held d_logits = tape.take(3 * tokens * experts);
  tape.touch(3 * experts * width);
  tape.take_sums(2 * experts * width);
}

}  // namespace hadal::plan
