// Block selection of NSA against the overlap formula by brute force: importance, forced blocks, ties, padding, decoding.
#include <algorithm>
#include <set>

#include "core/parallel_for.h"
#include "kernels/nsa.h"
#include "tests/kernels/attention_reference.h"

namespace hadal::kernels {
namespace {

using std::int64_t;
using test::GuardedHeads;

struct Case {
  int64_t batch, tokens, heads, key_heads, width, shared, length, stride, select, groups, chosen;
  int64_t start = 0, total = 0;  // total: tokens that have been compressed; 0: `tokens`
  int64_t keys() const { return num_compressed(total > 0 ? total : tokens, length, stride); }
};

struct Problem {
  explicit Problem(const Case& c)
      : q(c.batch * c.tokens, c.heads, c.width + c.shared),
        k(c.batch * c.keys(), c.key_heads, c.width),
        k_shared(c.batch * c.keys(), 1, c.shared),
        v(c.batch * c.keys(), c.key_heads, 4),
        o(c.batch * c.tokens, c.heads, 4),
        lse(c.batch * c.tokens, c.heads, 1, 0),
        blocks(static_cast<std::size_t>(c.batch * c.tokens * c.groups * c.chosen + 2), -99) {
    q.fill_random(21);
    k.fill_random(22);
    k_shared.fill_random(23);
    v.fill_random(24);
  }
  GuardedHeads<double> q, k, k_shared, v, o, lse;
  std::vector<std::int32_t> blocks;  // one guard on either side
};

constexpr double kScale = 0.4;

void select(const Case& c, Problem& p) {
  Stream stream;
  const View lse{p.lse.view().data, DType::kF64, {p.lse.tokens(), p.lse.heads()}, kCpu};
  const ConstHeads shared = c.shared > 0 ? ConstHeads(p.k_shared.view()) : ConstHeads{};
  const AttentionMask mask{.kind = AttentionMask::Kind::kBlocks, .block_length = c.length, .block_stride = c.stride};
  run(stream, FlashAttentionForward{.batch = c.batch,
                                    .q = p.q.view(),
                                    .k = p.k.view(),
                                    .k_shared = shared,
                                    .v = p.v.view(),
                                    .mask = mask,
                                    .query_start = c.start,
                                    .scale = kScale,
                                    .o = p.o.view(),
                                    .lse = lse});
  run(stream, NsaSelect{.batch = c.batch,
                        .q = p.q.view(),
                        .k = p.k.view(),
                        .k_shared = shared,
                        .lse = lse,
                        .scale = kScale,
                        .query_start = c.start,
                        .block_length = c.length,
                        .block_stride = c.stride,
                        .select_block = c.select,
                        .num_groups = c.groups,
                        .blocks = {p.blocks.data() + 1, DType::kI32, {c.batch * c.tokens, c.groups, c.chosen}, kCpu}});
}

// The same choice in two steps: importance, then the best of it.
void select_in_two_steps(const Case& c, Problem& p, std::vector<double>& importance) {
  Stream stream;
  const int64_t blocks = (c.start + c.tokens - 1) / c.select + 2;  // one more than there are
  importance.assign(static_cast<std::size_t>(c.batch * c.tokens * c.groups * blocks), -5.0);
  const View values{importance.data(), DType::kF64, {c.batch * c.tokens, c.groups, blocks}, kCpu};
  run(stream, NsaImportance{.batch = c.batch,
                            .q = p.q.view(),
                            .k = p.k.view(),
                            .k_shared = c.shared > 0 ? ConstHeads(p.k_shared.view()) : ConstHeads{},
                            .lse = {p.lse.view().data, DType::kF64, {p.lse.tokens(), p.lse.heads()}, kCpu},
                            .scale = kScale,
                            .query_start = c.start,
                            .block_length = c.length,
                            .block_stride = c.stride,
                            .select_block = c.select,
                            .num_groups = c.groups,
                            .importance = values});
  run(stream, NsaTopBlocks{.batch = c.batch,
                           .importance = values,
                           .query_start = c.start,
                           .select_block = c.select,
                           .blocks = {p.blocks.data() + 1, DType::kI32, {c.batch * c.tokens, c.groups, c.chosen}, kCpu}});
}

// Importance of every block by the definition: token by token overlap of compressed and selection blocks.
std::vector<double> importance(const Case& c, Problem& p, int64_t b, int64_t t, int64_t group) {
  const int64_t position = c.start + t, count = position / c.select + 1, per_group = c.heads / c.groups;
  std::vector<double> result(static_cast<std::size_t>(count), 0.0);
  for (int64_t head = group * per_group; head < (group + 1) * per_group; ++head) {
    std::vector<double> e;
    double total = 0;
    for (int64_t i = 0; i < c.keys() && i * c.stride + c.length - 1 <= position; ++i) {
      const int64_t key = b * c.keys() + i;
      double s = 0;
      for (int64_t w = 0; w < c.width; ++w)
        s += p.q.at(b * c.tokens + t, head, w) * p.k.at(key, head / (c.heads / c.key_heads), w);
      for (int64_t w = 0; w < c.shared; ++w) s += p.q.at(b * c.tokens + t, head, c.width + w) * p.k_shared.at(key, 0, w);
      e.push_back(std::exp(kScale * s));
      total += e.back();
    }
    for (std::size_t i = 0; i < e.size(); ++i) {
      for (int64_t token = static_cast<int64_t>(i) * c.stride; token < static_cast<int64_t>(i) * c.stride + c.length; ++token) {
        if (token / c.select < count)
          result[static_cast<std::size_t>(token / c.select)] += e[i] / total / static_cast<double>(c.stride);
      }
    }
  }
  return result;
}

std::vector<std::int32_t> best(const Case& c, const std::vector<double>& value, int64_t position) {
  const auto count = static_cast<int64_t>(value.size());
  std::vector<std::pair<double, int64_t>> order;
  for (int64_t j = 0; j < count; ++j) {
    const bool forced = j == 0 || j >= position / c.select - 1;
    order.emplace_back(forced ? -std::numeric_limits<double>::infinity() : -value[static_cast<std::size_t>(j)], j);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::int32_t> result;
  for (int64_t i = 0; i < std::min(c.chosen, count); ++i) {
    result.push_back(static_cast<std::int32_t>(order[static_cast<std::size_t>(i)].second));
  }
  std::sort(result.begin(), result.end());
  result.resize(static_cast<std::size_t>(c.chosen), -1);
  return result;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {1, 100, 4, 4, 8, 4, 8, 4, 16, 1, 4},  {2, 77, 4, 2, 8, 0, 4, 4, 4, 2, 5},     {1, 130, 6, 1, 5, 3, 8, 4, 8, 3, 3},
      {1, 200, 2, 2, 8, 0, 16, 4, 16, 1, 6}, {1, 90, 4, 4, 8, 0, 8, 2, 12, 4, 4},    {1, 70, 8, 8, 8, 4, 6, 3, 9, 2, 3},
      {1, 5, 2, 2, 8, 0, 8, 4, 8, 1, 4},     {1, 600, 2, 1, 4, 0, 32, 16, 64, 1, 4}, {1, 3, 2, 2, 8, 0, 8, 4, 16, 1, 4, 97, 100},
  };
  return all;
}

TEST(NsaSelect, EqualsTheOverlapFormula) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(::testing::Message() << "S " << c.tokens << " l " << c.length << " d " << c.stride << " l' " << c.select);
    Problem p(c);
    select(c, p);
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t t = 0; t < c.tokens; ++t) {
        for (int64_t g = 0; g < c.groups; ++g) {
          const auto first = p.blocks.begin() + 1 + ((b * c.tokens + t) * c.groups + g) * c.chosen;
          ASSERT_EQ(std::vector<std::int32_t>(first, first + c.chosen), best(c, importance(c, p, b, t, g), c.start + t))
              << "token " << t << " group " << g;
        }
      }
    }
    EXPECT_EQ(p.blocks.front(), -99);
    EXPECT_EQ(p.blocks.back(), -99);
  }
}

TEST(NsaSelect, ImportanceAndChoiceApartAreTheSame) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(::testing::Message() << "S " << c.tokens << " l " << c.length << " d " << c.stride << " l' " << c.select);
    Problem p(c);
    select(c, p);
    const std::vector<std::int32_t> wanted = p.blocks;
    std::vector<double> values;
    std::fill(p.blocks.begin(), p.blocks.end(), -99);
    select_in_two_steps(c, p, values);
    EXPECT_EQ(p.blocks, wanted);
    const int64_t blocks = (c.start + c.tokens - 1) / c.select + 2;
    for (int64_t row = 0; row < c.batch * c.tokens; ++row) {
      for (int64_t g = 0; g < c.groups; ++g) {
        std::vector<double> expected = importance(c, p, row / c.tokens, row % c.tokens, g);
        expected.resize(static_cast<std::size_t>(blocks), 0.0);
        for (int64_t j = 0; j < blocks; ++j) {
          ASSERT_NEAR(values[static_cast<std::size_t>((row * c.groups + g) * blocks + j)], expected[static_cast<std::size_t>(j)],
                      1e-12)
              << "row " << row << " group " << g << " block " << j;
        }
      }
    }
  }
}

// The paper's sizes: weights of compressed blocks 4j-1 .. 4j+3 on selection block j are 1 2 2 2 1.
TEST(NsaSelect, WeightsAtThePapersSizes) {
  const Case c{1, 400, 1, 1, 1, 0, 32, 16, 64, 1, 4};
  for (int64_t i = 0; i < c.keys(); ++i) {
    Problem p(c);  // one compressed block takes all the probability
    for (int64_t t = 0; t < c.tokens; ++t) p.q.at(t, 0, 0) = 1.0;
    for (int64_t j = 0; j < c.keys(); ++j) p.k.at(j, 0, 0) = i == j ? 1000.0 : 0.0;
    const std::vector<double> value = importance(c, p, 0, 399, 0);
    for (int64_t j = 0; j < 6; ++j) {
      const int64_t offset = i - (4 * j - 1);
      const double wanted = offset < 0 || offset > 4 ? 0.0 : (offset == 0 || offset == 4 ? 1.0 : 2.0);
      EXPECT_NEAR(value[static_cast<std::size_t>(j)], wanted, 1e-12) << "compressed " << i << " selected " << j;
    }
    select(c, p);
    const std::int32_t* last = p.blocks.data() + 1 + 399 * c.chosen;
    const std::vector<std::int32_t> chosen(last, last + 4);
    EXPECT_EQ(chosen, best(c, value, 399)) << "compressed " << i;
  }
}

TEST(NsaSelect, EqualImportanceGoesToTheLowerBlock) {
  const Case c{1, 128, 2, 2, 4, 0, 4, 4, 4, 1, 6};
  Problem p(c);
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t w = 0; w < 4; ++w) p.q.at(t, h, w) = 0;
    }
  }
  select(c, p);
  const std::int32_t* last = p.blocks.data() + 1 + 127 * c.chosen;
  EXPECT_EQ(std::vector<std::int32_t>(last, last + 6), (std::vector<std::int32_t>{0, 1, 2, 3, 30, 31}));
}

TEST(NsaSelect, FewBlocksAreAllTaken) {
  const Case c{1, 64, 2, 1, 4, 0, 8, 4, 16, 1, 8};
  Problem p(c);
  select(c, p);
  for (int64_t t = 0; t < 64; ++t) {
    for (int64_t i = 0; i < 8; ++i) {
      EXPECT_EQ(p.blocks[static_cast<std::size_t>(1 + t * 8 + i)], i <= t / 16 ? static_cast<std::int32_t>(i) : -1);
    }
  }
}

TEST(NsaSelect, SameForAnyThreads) {
  const int before = num_threads();
  const Case c{2, 300, 4, 4, 8, 4, 8, 4, 16, 2, 4};
  Problem one(c), two(c);
  set_num_threads(1);
  select(c, one);
  set_num_threads(2);
  select(c, two);
  set_num_threads(before);
  EXPECT_EQ(one.blocks, two.blocks);
}

}  // namespace
}  // namespace hadal::kernels
