// The exchange of context parallelism by itself: which rows lie where, gathered rows in order of position, their transpose.
#include "parallel/context_parallel.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "comm/local/local_group.h"
#include "nn/attention/split_heads.h"

namespace hadal {
namespace {

using nn::RowSpacing;
using nn::Segment;
using parallel::ContextParallel;

/// Rows of one rank, by position, of rows of a spacing.
std::vector<std::int64_t> own_rows(const ContextParallel& sequence, RowSpacing spacing) {
  std::vector<std::int64_t> rows;
  for (const Segment& segment : nn::rows_in(sequence.segments(), spacing)) {
    for (std::int64_t i = 0; i < segment.length; ++i) rows.push_back(segment.position + i);
  }
  return rows;
}

TEST(ContextParallel, EveryRowLiesOnOneRankAndWorkIsEven) {
  comm::run_local_group(4, [](comm::Communicator& cp) {
    const ContextParallel sequence(cp, 48);
    const std::vector<std::int64_t> tokens = own_rows(sequence, {1, 48});
    ASSERT_EQ(tokens.size(), 12U);
    std::int64_t pairs = 0;
    for (const std::int64_t token : tokens) pairs += token + 1;
    EXPECT_EQ(pairs, 48 * 49 / 2 / 4);
    EXPECT_EQ(sequence.segments().size(), cp.rank() == 3 ? 1U : 2U);  // the middle chunks are one segment
    // Compressed entries lie where their first token lies.
    std::int64_t entries = 0;
    for (const std::int64_t entry : own_rows(sequence, {5, 9})) {
      EXPECT_TRUE(std::find(tokens.begin(), tokens.end(), 5 * entry) != tokens.end()) << entry;
      ++entries;
    }
    EXPECT_EQ(cp.all_reduce_sum(entries), 9);
  });
}

double value(std::int64_t sequence, std::int64_t row, std::int64_t column) {
  return static_cast<double>(1000 * sequence + 10 * row + column);
}

// Two matrices at once, one of them a column slice, with rows that do not fall evenly on the ranks.
TEST(ContextParallel, GathersInOrderOfPosition) {
  for (const RowSpacing spacing : {RowSpacing{1, 16}, RowSpacing{3, 5}, RowSpacing{16, 1}}) {
    comm::run_local_group(4, [&](comm::Communicator& cp) {
      const ContextParallel sequence(cp, 16);
      const std::vector<std::int64_t> rows = own_rows(sequence, spacing);
      const auto own = static_cast<std::int64_t>(rows.size());
      Tensor a = Tensor::zeros({2 * own, 3}, DType::kF64), b = Tensor::zeros({2 * own, 5}, DType::kF64);
      for (std::int64_t r = 0; r < 2 * own; ++r) {
        for (std::int64_t c = 0; c < 3; ++c)
          a.as<double>()[r * 3 + c] = value(r / own, rows[static_cast<std::size_t>(r % own)], c);
        for (std::int64_t c = 0; c < 2; ++c)
          b.as<double>()[r * 5 + 3 + c] = value(r / own, rows[static_cast<std::size_t>(r % own)], 5 + c);
      }
      Tensor a_all = Tensor::zeros({2 * spacing.count, 3}, DType::kF64),
             b_all = Tensor::zeros({2 * spacing.count, 4}, DType::kF64);
      Stream stream;
      sequence.gather(stream, 2, spacing,
                      std::vector<kernels::ConstHeads>{nn::split_heads(a.view(), 1), kernels::heads_of(b.view(), 1, 5, 3, 2)},
                      std::vector<kernels::Heads>{nn::split_heads(a_all.view(), 1), kernels::heads_of(b_all.view(), 1, 4, 1, 2)});
      for (std::int64_t r = 0; r < 2 * spacing.count; ++r) {
        for (std::int64_t c = 0; c < 3; ++c)
          EXPECT_EQ(a_all.as<double>()[r * 3 + c], value(r / spacing.count, r % spacing.count, c));
        for (std::int64_t c = 0; c < 4; ++c) {
          const double wanted = c == 0 || c == 3 ? 0.0 : value(r / spacing.count, r % spacing.count, 4 + c);
          EXPECT_EQ(b_all.as<double>()[r * 4 + c], wanted);
        }
      }
    });
  }
}

TEST(ContextParallel, ReduceScatterSumsTheRowsThatLieHere) {
  for (const RowSpacing spacing : {RowSpacing{1, 16}, RowSpacing{3, 5}, RowSpacing{16, 1}}) {
    comm::run_local_group(4, [&](comm::Communicator& cp) {
      const ContextParallel sequence(cp, 16);
      const std::vector<std::int64_t> rows = own_rows(sequence, spacing);
      const auto own = static_cast<std::int64_t>(rows.size());
      Tensor whole = Tensor::zeros({2 * spacing.count, 3}, DType::kF64), local = Tensor::zeros({2 * own, 3}, DType::kF64);
      for (std::int64_t r = 0; r < 2 * spacing.count; ++r) {
        for (std::int64_t c = 0; c < 3; ++c) {
          whole.as<double>()[r * 3 + c] = (cp.rank() + 1) * value(r / spacing.count, r % spacing.count, c);
        }
      }
      Stream stream;
      sequence.reduce_scatter(stream, 2, spacing, std::vector<kernels::ConstHeads>{nn::split_heads(whole.view(), 1)},
                              std::vector<kernels::Heads>{nn::split_heads(local.view(), 1)});
      for (std::int64_t r = 0; r < 2 * own; ++r) {
        for (std::int64_t c = 0; c < 3; ++c) {
          EXPECT_EQ(local.as<double>()[r * 3 + c], 10 * value(r / own, rows[static_cast<std::size_t>(r % own)], c));
        }
      }
    });
  }
}

TEST(ContextParallel, OneMatrixOfTokens) {
  comm::run_local_group(2, [](comm::Communicator& cp) {
    const ContextParallel sequence(cp, 8);
    Tensor local = Tensor::empty({4, 1}, DType::kI32), whole = Tensor::empty({8, 1}, DType::kI32);
    const std::vector<std::int64_t> rows = own_rows(sequence, {1, 8});
    for (std::size_t i = 0; i < 4; ++i) local.as<std::int32_t>()[i] = static_cast<std::int32_t>(rows[i]);
    Stream stream;
    sequence.gather(stream, 1, local, whole);
    for (std::int32_t i = 0; i < 8; ++i) EXPECT_EQ(whole.as<std::int32_t>()[i], i);
  });
}

TEST(ContextParallel, ALengthThatDoesNotFallEvenlyIsRefused) {
  comm::run_local_group(2, [](comm::Communicator& cp) { EXPECT_THROW(ContextParallel(cp, 10), UserError); });
}

}  // namespace
}  // namespace hadal
