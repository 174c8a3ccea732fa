// Attention over selected blocks on CUDA against the CPU in f64: forward, gradients, sizes of every kind.
#include "tests/cuda/nsa_problem.h"

namespace hadal::test {
namespace {

using std::int64_t;

constexpr double kScale = 0.11;

struct Problem {
  Problem(const SelectedCase& c, DType dtype, Twin chosen)
      : q(HeadsTwin::normal(c.batch * c.tokens, c.heads, c.width + c.shared, c.gap, dtype, 21)),
        k(HeadsTwin::normal(c.batch * c.keys(), c.key_heads, c.width, c.gap, dtype, 22)),
        k_shared(HeadsTwin::normal(c.batch * c.keys(), 1, c.shared, c.gap, dtype, 23)),
        v(HeadsTwin::normal(c.batch * c.keys(), c.key_heads, c.value, c.gap, dtype, 24)),
        o(HeadsTwin::output(c.batch * c.tokens, c.heads, c.value, c.gap, dtype)),
        lse(Twin::output({c.batch * c.tokens, c.heads}, accumulation_dtype(dtype))),
        blocks(std::move(chosen)) {}
  HeadsTwin q, k, k_shared, v, o;
  Twin lse, blocks;
};

void forward(Stream& stream, Side side, const SelectedCase& c, Problem& p) {
  run(stream, kernels::NsaSelectedForward{.batch = c.batch,
                                          .q = p.q.on(side),
                                          .k = p.k.on(side),
                                          .k_shared = p.k_shared.on(side),
                                          .v = p.v.on(side),
                                          .blocks = side(p.blocks),
                                          .select_block = c.select,
                                          .query_start = c.start,
                                          .scale = kScale,
                                          .o = p.o.on(side),
                                          .lse = side(p.lse)});
}

std::string describe(const SelectedCase& c) {
  return fmt::format("B {} S {} H {}/{} w {}+{} dv {} Gs {} l' {} n {} start {} gap {}", c.batch, c.tokens, c.heads, c.key_heads, c.width, c.shared,
                     c.value, c.groups, c.select, c.chosen, c.start, c.gap);
}

void check_case(const SelectedCase& c, DType dtype, double tolerance, Twin blocks) {
  SCOPED_TRACE(describe(c));
  Problem p(c, dtype, std::move(blocks));
  run_on_both({&p.q.twin, &p.k.twin, &p.k_shared.twin, &p.v.twin, &p.blocks}, {&p.o.twin, &p.lse},
              [&](Stream& stream, Side side) { forward(stream, side, c, p); });
  EXPECT_TRUE(p.o.twin.agrees(tolerance));
  EXPECT_TRUE(p.lse.agrees(1e-5));

  // Both sides go on from the CPU's output, as the device holds it.
  HeadsTwin o(from_host(p.o.twin, dtype), c.heads, c.value, c.gap);
  Twin lse = from_host(p.lse, accumulation_dtype(dtype));
  HeadsTwin d_o = HeadsTwin::normal(c.batch * c.tokens, c.heads, c.value, c.gap, dtype, 25);
  for (const bool add : {false, true}) {
    SCOPED_TRACE(add ? "added" : "overwritten");
    const auto gradient = [&](int64_t heads, int64_t width) {
      return add ? HeadsTwin::normal(c.batch * c.keys(), heads, width, c.gap, dtype, 26)
                 : HeadsTwin::output(c.batch * c.keys(), heads, width, c.gap, dtype);
    };
    HeadsTwin d_q = HeadsTwin::output(c.batch * c.tokens, c.heads, c.width + c.shared, c.gap, dtype);
    HeadsTwin d_k = gradient(c.key_heads, c.width), d_shared = gradient(1, c.shared), d_v = gradient(c.key_heads, c.value);
    run_on_both({&p.q.twin, &p.k.twin, &p.k_shared.twin, &p.v.twin, &p.blocks, &o.twin, &lse, &d_o.twin},
                {&d_q.twin, &d_k.twin, &d_shared.twin, &d_v.twin}, [&](Stream& stream, Side side) {
                  run(stream, kernels::NsaSelectedBackward{.batch = c.batch,
                                                           .q = p.q.on(side),
                                                           .k = p.k.on(side),
                                                           .k_shared = p.k_shared.on(side),
                                                           .v = p.v.on(side),
                                                           .blocks = side(p.blocks),
                                                           .select_block = c.select,
                                                           .query_start = c.start,
                                                           .scale = kScale,
                                                           .o = o.on(side),
                                                           .lse = side(lse),
                                                           .d_o = d_o.on(side),
                                                           .d_q = d_q.on(side),
                                                           .d_k = d_k.on(side),
                                                           .d_k_shared = d_shared.on(side),
                                                           .d_v = d_v.on(side),
                                                           .add_to_keys = add});
                });
    EXPECT_TRUE(d_q.twin.agrees(tolerance));
    EXPECT_TRUE(d_k.twin.agrees(tolerance));
    EXPECT_TRUE(d_shared.twin.agrees(tolerance));
    EXPECT_TRUE(d_v.twin.agrees(tolerance));
  }
}

void check_case(const SelectedCase& c, DType dtype, double tolerance) { check_case(c, dtype, tolerance, random_blocks(c)); }

/// Everybody reads block 0, nobody block 2, a third the block before their own; the rest of the lists is empty.
Twin skewed_blocks(const SelectedCase& c) {
  std::vector<int64_t> result;
  for (int64_t row = 0; row < c.batch * c.tokens; ++row) {
    const int64_t own = (c.start + row % c.tokens) / c.select;
    std::vector<int64_t> list{0};
    for (const int64_t block : {own - 1, own}) {
      if (block > 0 && block != 2 && (block == own || row % 3 == 0)) list.push_back(block);
    }
    list.resize(static_cast<std::size_t>(c.chosen), -1);
    for (int64_t group = 0; group < c.groups; ++group) result.insert(result.end(), list.begin(), list.end());
  }
  return Twin::ints({c.batch * c.tokens, c.groups, c.chosen}, result);
}

const std::vector<SelectedCase>& cases() {
  static const std::vector<SelectedCase> all{
      {1, 1, 1, 1, 8, 0, 8, 1, 16, 3},                // one token
      {2, 70, 3, 3, 32, 16, 32, 1, 8, 4},             // MLA, one head a key head
      {1, 200, 8, 1, 40, 8, 24, 1, 16, 5},            // absorbed MLA
      {1, 130, 6, 2, 24, 0, 40, 2, 4, 6},             // GQA
      {1, 130, 6, 2, 24, 0, 16, 6, 12, 3},            // every head selects for itself
      {1, 90, 6, 3, 24, 8, 16, 2, 12, 3, 0, 1},       // groups that cut key heads
      {1, 90, 5, 1, 7, 3, 5, 1, 5, 4, 0, 3},          // nothing round
      {2, 33, 4, 2, 16, 8, 16, 2, 8, 4, 71},          // queries that start at a position
      {1, 40, 2, 1, 512, 64, 512, 1, 16, 40},         // more lists than blocks, the widest heads
      {1, 300, 16, 1, 128, 0, 128, 1, 64, 3, 0, 8},   // a group of 16
      {2, 130, 32, 2, 128, 0, 128, 2, 64, 16, 500},   // a chunk of a longer sequence
      {1, 61, 16, 1, 128, 0, 128, 1, 64, 16, 6000},   // neighbours that select many different blocks
      {1, 150, 64, 4, 128, 0, 128, 4, 32, 4},         // smaller blocks
      {1, 100, 24, 2, 64, 0, 64, 2, 16, 4},           // groups of 12 heads
      {1, 200, 32, 2, 192, 0, 128, 2, 64, 3, 50, 8},  // queries and keys wider than values
      {1, 900, 16, 1, 64, 0, 64, 1, 16, 9},           // lists of many tokens, tiles of keys that blocks leave half empty
      {1, 300, 4, 1, 128, 0, 128, 1, 128, 2},         // blocks of two tiles of keys, groups of 4
      {2, 133, 8, 4, 128, 0, 128, 4, 16, 4, 60},      // groups of 2: rows of eight tokens together
      {1, 260, 8, 8, 128, 64, 128, 2, 32, 5, 0, 8},   // MLA with keys per head, two selections
      {2, 77, 4, 4, 192, 0, 128, 1, 24, 3},           // blocks of half a step
      {1, 200, 4, 4, 128, 64, 128, 1, 64, 2},         // MLA with keys per head
      {1, 130, 16, 1, 512, 64, 512, 1, 64, 2},        // absorbed MLA, 16 heads
      {1, 70, 32, 1, 512, 64, 512, 1, 32, 3, 40},     // 32 heads
      {2, 97, 32, 2, 128, 0, 128, 1, 16, 5},          // one selection for two key heads
      {2, 97, 32, 1, 128, 0, 128, 2, 16, 5},          // two selections of one key head
      {1, 400, 64, 1, 64, 0, 64, 1, 64, 7},           // everybody selects everything: lists in several pieces
      {1, 330, 64, 1, 512, 64, 512, 1, 64, 6},        // ... absorbed MLA
      {1, 60, 4, 1, 512, 64, 512, 1, 16, 3, 0, 8},    // few heads: rows of four tokens together
      {1, 5, 16, 1, 128, 0, 128, 1, 64, 16},          // fewer tokens than a block
      {1, 5, 2, 2, 128, 64, 128, 1, 64, 16},          // ... keys per head
      {2, 1301, 2, 2, 128, 64, 128, 1, 64, 16},       // keys per head, lists of several pieces
      {2, 201, 6, 3, 64, 0, 64, 3, 64, 4},            // two heads a key head
      {1, 190, 10, 2, 128, 0, 128, 2, 80, 3, 33},     // five heads, blocks that end inside a tile of keys
      {1, 150, 6, 2, 128, 64, 128, 6, 16, 5},         // every head selects for itself
      {1, 100, 6, 3, 64, 0, 64, 2, 32, 3},            // groups that cut key heads
  };
  return all;
}

TEST(CudaNsaSelected, F32EqualsTheCpu) {
  for (const SelectedCase& c : cases()) check_case(c, DType::kF32, 1e-5);
}

// Probabilities and their gradients are rounded to bf16 before they meet values and keys.
TEST(CudaNsaSelected, Bf16EqualsTheCpu) {
  for (const SelectedCase& c : cases()) check_case(c, DType::kBf16, 1e-2);
}

TEST(CudaNsaSelected, ListsOfAllLengthsEqualTheCpu) {
  for (const SelectedCase& c : std::vector<SelectedCase>{{2, 1281, 2, 2, 128, 64, 128, 1, 64, 16},
                                                         {1, 4300, 1, 1, 128, 64, 128, 1, 64, 3},
                                                         {1, 700, 4, 4, 64, 0, 64, 2, 16, 3, 30, 8},
                                                         {1, 400, 3, 3, 192, 0, 128, 1, 100, 3, 5},
                                                         {1, 700, 16, 1, 128, 0, 128, 1, 64, 4}}) {
    check_case(c, DType::kF32, 1e-5, skewed_blocks(c));
    check_case(c, DType::kBf16, 1e-2, skewed_blocks(c));
  }
}

TEST(CudaNsaSelected, KeysThatNobodySelectsHaveNoGradient) {
  const SelectedCase c{1, 0, 16, 1, 128, 0, 128, 1, 64, 3, 100};
  Problem p(c, DType::kBf16, random_blocks(c));
  HeadsTwin d_q = HeadsTwin::output(0, 16, 128, 0, DType::kBf16), d_k = HeadsTwin::output(100, 1, 128, 0, DType::kBf16);
  HeadsTwin d_v = HeadsTwin::output(100, 1, 128, 0, DType::kBf16);
  run_on_both({}, {&d_k.twin, &d_v.twin}, [&](Stream& stream, Side side) {
    run(stream, kernels::NsaSelectedBackward{.q = p.q.on(side),
                                             .k = p.k.on(side),
                                             .v = p.v.on(side),
                                             .blocks = side(p.blocks),
                                             .select_block = 64,
                                             .query_start = 100,
                                             .scale = kScale,
                                             .o = p.o.on(side),
                                             .lse = side(p.lse),
                                             .d_o = p.o.on(side),
                                             .d_q = d_q.on(side),
                                             .d_k = d_k.on(side),
                                             .d_v = d_v.on(side)});
  });
  EXPECT_EQ(d_k.twin.error(), 0);
  EXPECT_EQ(d_v.twin.error(), 0);
}

}  // namespace
}  // namespace hadal::test
