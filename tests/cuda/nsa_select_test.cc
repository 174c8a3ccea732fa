// Importance and choice of selection blocks on CUDA against the CPU in f64. The inputs of both are the same rounded values, so that
// the choice is the same wherever importance is not a near tie; the test says so of its own data.
#include <cmath>
#include <limits>

#include "kernels/flash_attention.h"
#include "tests/cuda/nsa_problem.h"

namespace hadal::test {
namespace {

using std::int64_t;

constexpr double kScale = 0.12;

struct Case {
  int64_t batch, tokens, heads, key_heads, width, shared, length, stride, select, groups, chosen;
  int64_t start = 0, gap = 0;
  int64_t keys() const { return kernels::num_compressed(start + tokens, length, stride); }
  int64_t blocks() const { return (start + tokens - 1) / select + 1; }
};

struct Problem {
  Problem(const Case& c, DType dtype) : Problem(c, dtype, Twin::zeros({c.batch * c.tokens, c.heads}, DType::kF32)) { lse = compressed_lse(c); }
  Problem(const Case& c, DType dtype, Twin given)
      : q(HeadsTwin::normal(c.batch * c.tokens, c.heads, c.width + c.shared, c.gap, dtype, 41)),
        k(HeadsTwin::normal(c.batch * c.keys(), c.key_heads, c.width, c.gap, dtype, 42)),
        k_shared(HeadsTwin::normal(c.batch * c.keys(), 1, c.shared, c.gap, dtype, 43)),
        lse(std::move(given)) {}
  HeadsTwin q, k, k_shared;
  Twin lse;

 private:
  // The keys stand in for the values.
  Twin compressed_lse(const Case& c) {
    const Side host{false};
    Tensor o = Tensor::empty({c.batch * c.tokens, c.heads * c.width}, DType::kF64), sums = Tensor::empty({c.batch * c.tokens, c.heads}, DType::kF64);
    Stream stream(kCpu);
    run(stream,
        kernels::FlashAttentionForward{.batch = c.batch,
                                       .q = q.on(host),
                                       .k = k.on(host),
                                       .k_shared = k_shared.on(host),
                                       .v = k.on(host),
                                       .mask = {.kind = kernels::AttentionMask::Kind::kBlocks, .block_length = c.length, .block_stride = c.stride},
                                       .query_start = c.start,
                                       .scale = kScale,
                                       .o = kernels::heads_of(o.view(), c.heads, c.width, 0, c.width),
                                       .lse = sums});
    return {std::move(sums), DType::kF32};
  }
};

template <class Args>
Args arguments(const Case& c, Problem& p, Side side) {
  Args args;
  args.batch = c.batch;
  args.q = p.q.on(side);
  args.k = p.k.on(side);
  args.k_shared = p.k_shared.on(side);
  args.lse = side(p.lse);
  args.scale = kScale;
  args.query_start = c.start;
  args.block_length = c.length;
  args.block_stride = c.stride;
  args.select_block = c.select;
  args.num_groups = c.groups;
  return args;
}

// Smallest relative distance between the last block that is chosen by importance and the best one that is not.
double smallest_gap(const Case& c, const double* importance) {
  double gap = std::numeric_limits<double>::infinity();
  for (int64_t row = 0; row < c.batch * c.tokens * c.groups; ++row, importance += c.blocks()) {
    const int64_t own = (c.start + row / c.groups % c.tokens) / c.select;
    if (own + 1 <= c.chosen) continue;
    std::vector<double> rest;
    for (int64_t j = 1; j < own - 1; ++j) rest.push_back(importance[j]);
    const auto free = static_cast<std::size_t>(std::max<int64_t>(c.chosen - 3, 0));
    if (free == 0 || free >= rest.size()) continue;
    std::ranges::sort(rest, std::greater());
    gap = std::min(gap, (rest[free - 1] - rest[free]) / rest[0]);
  }
  return gap;
}

void check_case(const Case& c, DType dtype) {
  SCOPED_TRACE(fmt::format("B {} S {} H {}/{} w {}+{} l {} d {} l' {} Gs {} n {} start {}", c.batch, c.tokens, c.heads, c.key_heads, c.width,
                           c.shared, c.length, c.stride, c.select, c.groups, c.chosen, c.start));
  Problem p(c, dtype);
  Twin importance = Twin::output({c.batch * c.tokens, c.groups, c.blocks()}, DType::kF32);
  run_on_both({&p.q.twin, &p.k.twin, &p.k_shared.twin, &p.lse}, {&importance}, [&](Stream& stream, Side side) {
    auto args = arguments<kernels::NsaImportance>(c, p, side);
    args.importance = side(importance);
    run(stream, args);
  });
  EXPECT_TRUE(importance.agrees(5e-6));  // half of what two blocks must be apart
  ASSERT_GT(smallest_gap(c, importance.host().as<double>()), 1e-5) << "near tie: take another seed";

  Twin blocks = Twin::output({c.batch * c.tokens, c.groups, c.chosen}, DType::kI32);
  run_on_both({&p.q.twin, &p.k.twin, &p.k_shared.twin, &p.lse}, {&blocks}, [&](Stream& stream, Side side) {
    auto args = arguments<kernels::NsaSelect>(c, p, side);
    args.blocks = side(blocks);
    run(stream, args);
  });
  EXPECT_TRUE(blocks.equal());

  Twin given = from_host(importance, DType::kF32), chosen = Twin::output({c.batch * c.tokens, c.groups, c.chosen}, DType::kI32);
  run_on_both({&given}, {&chosen}, [&](Stream& stream, Side side) {
    run(stream,
        kernels::NsaTopBlocks{.batch = c.batch, .importance = side(given), .query_start = c.start, .select_block = c.select, .blocks = side(chosen)});
  });
  EXPECT_TRUE(chosen.equal());
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {1, 3, 2, 1, 8, 0, 4, 2, 4, 1, 3},                   // fewer tokens than a block
      {2, 70, 4, 2, 24, 8, 8, 4, 8, 2, 4},                 // two groups
      {1, 90, 6, 3, 7, 3, 6, 3, 9, 2, 5, 0, 1},            // groups that cut key heads, nothing round
      {1, 90, 6, 3, 16, 0, 4, 4, 4, 6, 4},                 // every head for itself, blocks that do not overlap
      {2, 40, 4, 1, 16, 8, 8, 4, 16, 1, 5, 300},           // queries that start at a position
      {1, 60, 3, 3, 32, 32, 8, 4, 8, 1, 40},               // more than there are
      {1, 400, 16, 1, 128, 0, 32, 16, 64, 1, 4},           // a group of 16
      {1, 300, 32, 2, 128, 0, 32, 16, 64, 2, 5, 2100, 8},  // a chunk of a longer sequence
      {1, 150, 16, 16, 128, 64, 32, 16, 64, 1, 4, 600},    // MLA with keys per head
      {1, 70, 16, 1, 512, 64, 32, 16, 64, 1, 6, 3000},     // absorbed MLA
      {2, 100, 8, 2, 64, 0, 16, 16, 16, 1, 6, 200},        // one group of two key heads
      {1, 100, 8, 2, 64, 0, 16, 4, 32, 4, 6, 200},         // blocks that overlap four times
      {1, 1, 32, 2, 128, 0, 32, 16, 64, 2, 16, 5000},      // decoding
      {1, 200, 4, 4, 8, 0, 8, 4, 16, 1, 1, 20},            // only the first block
  };
  return all;
}

TEST(CudaNsaSelect, F32EqualsTheCpu) {
  for (const Case& c : cases()) check_case(c, DType::kF32);
}

TEST(CudaNsaSelect, Bf16EqualsTheCpu) {
  for (const Case& c : cases()) check_case(c, DType::kBf16);
}

// Importance that is too large to be held at once: queries in pieces, over two sequences, against all of it in two steps.
TEST(CudaNsaSelect, LongSequencesInSeveralPieces) {
  const Case c{2, 150, 8, 1, 8, 0, 4, 4, 4, 8, 6, 160000};
  Problem p(c, DType::kBf16, Twin::normal({c.batch * c.tokens, c.heads}, DType::kF32, 44));
  const Side device{true};
  Stream stream = stream_of(kGpu);
  Tensor importance = Tensor::empty({c.batch * c.tokens, c.groups, c.blocks()}, DType::kF32, kGpu);
  Tensor blocks = Tensor::empty({c.batch * c.tokens, c.groups, c.chosen}, DType::kI32, kGpu), wanted = blocks.clone();
  auto select = arguments<kernels::NsaSelect>(c, p, device);
  select.blocks = blocks;
  run(stream, select);
  auto all = arguments<kernels::NsaImportance>(c, p, device);
  all.importance = importance;
  run(stream, all);
  run(stream, kernels::NsaTopBlocks{.batch = c.batch, .importance = importance, .query_start = c.start, .select_block = c.select, .blocks = wanted});
  const Tensor got = to_host(stream, blocks), want = to_host(stream, wanted);
  EXPECT_TRUE(std::ranges::equal(got.span<std::int32_t>(), want.span<std::int32_t>()));
  EXPECT_EQ(got.as<std::int32_t>()[0], 0);
}

TEST(CudaNsaSelect, TiesGoToTheLowerBlock) {
  constexpr int64_t kTokens = 200, kBlocks = 100;
  Tensor values = Tensor::empty({kTokens, 1, kBlocks}, DType::kF64);
  for (int64_t i = 0; i < values.numel(); ++i) values.as<double>()[i] = static_cast<double>(i * 7 % 5) / 4;
  Twin importance(std::move(values), DType::kF32), chosen = Twin::output({kTokens, 1, 9}, DType::kI32);
  run_on_both({&importance}, {&chosen}, [&](Stream& stream, Side side) {
    run(stream, kernels::NsaTopBlocks{.importance = side(importance), .select_block = 2, .blocks = side(chosen)});
  });
  EXPECT_TRUE(chosen.equal());
}

}  // namespace
}  // namespace hadal::test
