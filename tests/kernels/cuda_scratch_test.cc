// Guards: what the CUDA kernels ask for beside their arguments stays within the bounds that cuda_scratch.h names, and covers the work: turns
// of heads, heads whose d_s are kept, chunks of logits and of importance; the cut of a few keys' gradients.
#include "kernels/cuda_scratch.h"

#include <gtest/gtest.h>

#include "kernels/key_cut.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// 32768 tokens, 16 blocks of 64 of them for each.
SelectedShape selected(std::int64_t heads, std::int64_t key_heads, std::int64_t groups) {
  return {.batch = 1,
          .tokens = 32768,
          .keys = 32768,
          .heads = heads,
          .key_heads = key_heads,
          .groups = groups,
          .chosen = 16,
          .select_block = 64,
          .key_width = 128,
          .shared_width = 64,
          .value_width = 128};
}

TEST(CudaScratch, HeadsTakeTurnsOfHalfAGibibyte) {
  for (const std::int64_t heads : {1, 5, 16, 128}) {
    const SelectedShape shape = selected(heads, heads, 1);
    const HeadTurns turns = head_turns(shape, 192, false);
    EXPECT_EQ(turns.rows, 32768 * 16);
    EXPECT_LE(turns.heads * turns.rows * 192 * 2, 512 * kMiB);
    EXPECT_TRUE(turns.heads == heads || (turns.heads + 1) * turns.rows * 192 * 2 > 256 * kMiB) << turns.heads << " of " << heads;
  }
  SelectedShape large = selected(4, 4, 1);
  large.batch = 8;
  EXPECT_EQ(head_turns(large, 192, true).heads, 1);  // more than that for one head
}

TEST(CudaScratch, ScoresOfSoManyKeyHeadsAndTokensAreKept) {
  const auto expect_turns = [](const SelectedShape& shape, bool keeps, std::int64_t key_heads, std::int64_t tokens) {
    const ScoreTurns turns = score_turns(shape);
    EXPECT_EQ(turns.keeps, keeps);
    EXPECT_EQ(turns.key_heads, key_heads);
    EXPECT_EQ(turns.tokens, tokens);
  };
  SelectedShape shape = selected(64, 4, 4);
  EXPECT_EQ(score_bytes(shape, shape.tokens), std::int64_t{32768} * 16 * 16 * 64 * 2);  // 1 GiB
  expect_turns(shape, true, 1, 32768);
  expect_turns(selected(60, 4, 4), false, 4, 32768);  // 15 heads of a key head
  shape.tokens = shape.keys = 100000;                 // in turns of whole pieces of the lists
  expect_turns(shape, true, 1, 32768 / block_list_sizes(shape).tokens_of_piece * block_list_sizes(shape).tokens_of_piece);
  EXPECT_GT(block_list_sizes(shape).tokens_of_piece, 32);
  shape.tokens = 4096;
  expect_turns(shape, true, 4, 4096);
  shape.batch = 16;  // of several sequences, all or none
  expect_turns(shape, false, 4, 4096);
  EXPECT_FALSE(is_key_major(shape));
  EXPECT_TRUE(is_key_major(selected(64, 64, 1)));
  EXPECT_TRUE(is_key_major(selected(64, 8, 4)));
}

TEST(CudaScratch, ChunksOfLogitsAreOfWholeTiles) {
  for (const std::int64_t tokens : {1, 100, 4096, 100000}) {
    for (const std::int64_t columns : {7, 32000, 102400, 129280}) {
      const std::int64_t row = head_row_elements(columns, DType::kBf16) * 2, rows = head_chunk_rows(tokens, row);
      EXPECT_TRUE(rows == tokens || (rows < tokens && rows % 128 == 0)) << rows << " of " << tokens;
      EXPECT_LE(rows * row, 508 * kMiB);
      EXPECT_GE(row, columns * 2);
      EXPECT_EQ(row % 16, 0);
    }
  }
  EXPECT_EQ(head_chunk_rows(4096, 102400 * 2), 2048);  // two equal ones, not 2560 and the rest
}

TEST(CudaScratch, ImportanceOfSomeQueriesAtATime) {
  const ImportanceChunk all = importance_chunk(4, 1000, 4, 100), some = importance_chunk(4, 32768, 4, 4096);
  const ImportanceChunk few = importance_chunk(2, 1 << 20, 64, 16384);
  EXPECT_EQ(all.sequences * all.queries, 4000);
  EXPECT_EQ(some.sequences, 1);
  EXPECT_EQ(some.queries * 4 * 4096 * 4, 256 * kMiB);
  EXPECT_EQ(few.queries, 64);
}

TEST(CudaScratch, FewKeysAreCutIntoParts) {
  KeyCutShape shape{.batch = 1, .tokens = 32768, .keys = 2048, .heads = 64, .key_heads = 4, .columns = 256, .query_start = 0, .window = 0,
                    .block_length = 32, .block_stride = 16};
  const KeyCut few = cut_keys(shape, 64);
  EXPECT_GT(few.count(), 1);
  EXPECT_GE(few.ranges * few.range_tiles, 512);
  EXPECT_LE(few.heads, 16);
  shape.keys = 32768;
  shape.heads = shape.key_heads = 128;
  shape.block_length = shape.block_stride = 0;
  EXPECT_EQ(cut_keys(shape, 64).count(), 1);
  EXPECT_EQ(key_gradient_queries(key_gradient_chunks(128, 64, 128)), 48);
  EXPECT_EQ(key_gradient_queries(key_gradient_chunks(128, 0, 128)), 64);
}

}  // namespace
}  // namespace hadal::kernels
