// Attention over selected blocks against plain attention with the same mask, central differences, dense attention and itself.
#include <algorithm>

#include "core/parallel_for.h"
#include "kernels/nsa.h"
#include "tests/kernels/attention_reference.h"

namespace hadal::kernels {
namespace {

using std::int64_t;
using test::AttentionBuffers;

struct Case {
  int64_t batch, tokens, heads, key_heads, width, shared, value, groups, select, chosen;
  int64_t start = 0;  // position of the first query; keys from position 0 on
  int64_t keys() const { return start + tokens; }
};

constexpr double kScale = 0.31;

// Random lists in the form that NsaSelect writes: ascending, own block always in, -1 padded.
std::vector<std::int32_t> random_blocks(const Case& c) {
  const Random random(31, RandomPurpose::kSynthetic);
  std::vector<std::int32_t> result;
  std::uint64_t draw = 0;
  for (int64_t row = 0; row < c.batch * c.tokens; ++row) {
    for (int64_t g = 0; g < c.groups; ++g) {
      const int64_t own = (c.start + row % c.tokens) / c.select;
      std::vector<std::int32_t> list{static_cast<std::int32_t>(own)};
      for (int64_t i = 1; i < c.chosen && static_cast<int64_t>(list.size()) <= own; ++i) {
        const auto block = static_cast<std::int32_t>(random.below(draw++, static_cast<std::uint64_t>(own + 1)));
        if (std::find(list.begin(), list.end(), block) == list.end()) list.push_back(block);
      }
      std::sort(list.begin(), list.end());
      list.resize(static_cast<std::size_t>(c.chosen), -1);
      result.insert(result.end(), list.begin(), list.end());
    }
  }
  return result;
}

template <class T>
AttentionBuffers<T> buffers(const Case& c) {
  return {c.batch, c.tokens, c.keys(), c.heads, c.key_heads, c.width, c.shared, c.value};
}

ConstView view_of(const std::vector<std::int32_t>& blocks, const Case& c) {
  return {blocks.data(), DType::kI32, {c.batch * c.tokens, c.groups, c.chosen}, kCpu};
}

template <class T>
void forward(AttentionBuffers<T>& x, const Case& c, const std::vector<std::int32_t>& blocks) {
  Stream stream;
  run(stream, NsaSelectedForward{.batch = c.batch,
                                 .q = x.q.view(),
                                 .k = x.k.view(),
                                 .k_shared = x.shared(),
                                 .v = x.v.view(),
                                 .blocks = view_of(blocks, c),
                                 .select_block = c.select,
                                 .query_start = c.start,
                                 .scale = kScale,
                                 .o = x.o.view(),
                                 .lse = x.lse_view()});
}

template <class T>
void backward(AttentionBuffers<T>& x, const Case& c, const std::vector<std::int32_t>& blocks) {
  Stream stream;
  run(stream, NsaSelectedBackward{.batch = c.batch,
                                  .q = x.q.view(),
                                  .k = x.k.view(),
                                  .k_shared = x.shared(),
                                  .v = x.v.view(),
                                  .blocks = view_of(blocks, c),
                                  .select_block = c.select,
                                  .query_start = c.start,
                                  .scale = kScale,
                                  .o = x.o.view(),
                                  .lse = x.lse_view(),
                                  .d_o = x.d_o.view(),
                                  .d_q = x.d_q.view(),
                                  .d_k = x.d_k.view(),
                                  .d_k_shared = x.d_shared(),
                                  .d_v = x.d_v.view()});
}

void reference(AttentionBuffers<double>& x, const Case& c, const std::vector<std::int32_t>& blocks) {
  test::reference_attention(x, kScale, [&](int64_t b, int64_t t, int64_t h, int64_t j) {
    const auto first = blocks.begin() + ((b * c.tokens + t) * c.groups + h / (c.heads / c.groups)) * c.chosen;
    return j <= c.start + t && std::find(first, first + c.chosen, static_cast<std::int32_t>(j / c.select)) != first + c.chosen;
  });
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {1, 1, 1, 1, 8, 0, 8, 1, 16, 3},         // one token
      {2, 70, 3, 3, 32, 16, 32, 1, 8, 4},      // MLA, one head a key head
      {1, 200, 8, 1, 40, 8, 24, 1, 16, 5},     // absorbed MLA: a whole strip is one token
      {1, 130, 6, 2, 24, 0, 40, 2, 4, 6},      // GQA
      {1, 130, 6, 2, 24, 0, 16, 6, 12, 3},     // every head selects for itself
      {1, 600, 2, 1, 8, 4, 8, 1, 64, 3},       // parts and partial sums
      {1, 700, 2, 2, 8, 4, 8, 1, 64, 7},       // a strip's union fills several score buffers
      {1, 90, 5, 1, 7, 3, 5, 1, 5, 4},         // nothing round
      {2, 40, 6, 2, 7, 3, 5, 3, 5, 4},         // nothing round, short
      {1, 300, 4, 4, 16, 8, 16, 1, 16, 8},     // twice as long as what is selected
      {2, 33, 4, 2, 16, 8, 16, 2, 8, 4, 71},   // queries that start at a position: a chunk of a longer sequence
      {1, 600, 2, 1, 8, 4, 8, 1, 64, 5, 130},  // ... in several parts
  };
  return all;
}

TEST(NsaSelected, EqualsPlainAttentionF64) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(::testing::Message() << "S " << c.tokens << " H " << c.heads << " Hk " << c.key_heads << " l' " << c.select);
    auto x = buffers<double>(c), wanted = buffers<double>(c);
    const auto blocks = random_blocks(c);
    forward(x, c, blocks);
    backward(x, c, blocks);
    reference(wanted, c, blocks);
    test::expect_same_attention(x, wanted, 2e-13);
  }
}

TEST(NsaSelected, EqualsPlainAttentionF32) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(::testing::Message() << "S " << c.tokens << " H " << c.heads << " Hk " << c.key_heads << " l' " << c.select);
    auto x = buffers<float>(c);
    auto wanted = buffers<double>(c);
    const auto blocks = random_blocks(c);
    forward(x, c, blocks);
    backward(x, c, blocks);
    reference(wanted, c, blocks);
    test::expect_same_attention(x, wanted, 5e-6);
  }
}

TEST(NsaSelected, GradientEqualsCentralDifferences) {
  for (const Case& c :
       {Case{2, 11, 4, 2, 3, 2, 3, 1, 2, 3}, Case{1, 13, 2, 2, 3, 0, 4, 2, 3, 2}, Case{2, 5, 4, 2, 3, 2, 3, 1, 2, 3, 7}}) {
    const auto blocks = random_blocks(c);
    auto x = buffers<double>(c), moved = buffers<double>(c), numeric = buffers<double>(c);
    forward(x, c, blocks);
    backward(x, c, blocks);
    const auto loss = [&] {
      forward(moved, c, blocks);
      return test::weighted_sum(moved.o, moved.d_o);
    };
    test::numeric_gradient(moved.q, numeric.d_q, loss);
    test::numeric_gradient(moved.k, numeric.d_k, loss);
    test::numeric_gradient(moved.v, numeric.d_v, loss);
    EXPECT_LE(test::relative_error(x.d_q, numeric.d_q), 1e-7);
    EXPECT_LE(test::relative_error(x.d_k, numeric.d_k), 1e-7);
    EXPECT_LE(test::relative_error(x.d_v, numeric.d_v), 1e-7);
    if (c.shared > 0) {
      test::numeric_gradient(moved.k_shared, numeric.d_k_shared, loss);
      EXPECT_LE(test::relative_error(x.d_k_shared, numeric.d_k_shared), 1e-7);
    }
  }
}

TEST(NsaSelected, GradientsOfKeysAddUpOverCalls) {
  const Case c{1, 90, 4, 2, 8, 4, 8, 2, 8, 4, 20};
  const auto blocks = random_blocks(c);
  auto x = buffers<double>(c), twice = buffers<double>(c);
  forward(x, c, blocks);
  forward(twice, c, blocks);
  backward(x, c, blocks);
  backward(twice, c, blocks);
  Stream stream;
  run(stream, NsaSelectedBackward{.batch = c.batch,
                                  .q = twice.q.view(),
                                  .k = twice.k.view(),
                                  .k_shared = twice.shared(),
                                  .v = twice.v.view(),
                                  .blocks = view_of(blocks, c),
                                  .select_block = c.select,
                                  .query_start = c.start,
                                  .scale = kScale,
                                  .o = twice.o.view(),
                                  .lse = twice.lse_view(),
                                  .d_o = twice.d_o.view(),
                                  .d_q = twice.d_q.view(),
                                  .d_k = twice.d_k.view(),
                                  .d_k_shared = twice.d_shared(),
                                  .d_v = twice.d_v.view(),
                                  .add_to_keys = true});
  EXPECT_EQ(x.d_q.raw(), twice.d_q.raw());
  for (auto* pair : {&x.d_k, &x.d_k_shared, &x.d_v}) {
    for (int64_t t = 0; t < pair->tokens(); ++t) {
      for (int64_t h = 0; h < pair->heads(); ++h) {
        for (int64_t i = 0; i < pair->width(); ++i) pair->at(t, h, i) *= 2;
      }
    }
  }
  EXPECT_LE(test::relative_error(twice.d_k, x.d_k), 1e-15);
  EXPECT_LE(test::relative_error(twice.d_k_shared, x.d_k_shared), 1e-15);
  EXPECT_LE(test::relative_error(twice.d_v, x.d_v), 1e-15);
}

TEST(NsaSelected, EverythingSelectedEqualsDense) {
  const Case c{2, 100, 4, 4, 16, 8, 16, 1, 16, 8};
  std::vector<std::int32_t> blocks;
  for (int64_t row = 0; row < c.batch * c.tokens; ++row) {
    for (int64_t i = 0; i < c.chosen; ++i) {
      blocks.push_back(i <= row % c.tokens / c.select ? static_cast<std::int32_t>(i) : -1);
    }
  }
  auto x = buffers<double>(c), wanted = buffers<double>(c);
  forward(x, c, blocks);
  backward(x, c, blocks);
  test::reference_attention(wanted, kScale, [](int64_t, int64_t t, int64_t, int64_t j) { return j <= t; });
  test::expect_same_attention(x, wanted, 2e-13);
}

TEST(NsaSelected, LaterQueriesEqualTheRowsOfTheWholeRun) {
  const Case c{1, 120, 4, 2, 16, 8, 16, 1, 8, 4};
  const auto blocks = random_blocks(c);
  auto x = buffers<double>(c);
  forward(x, c, blocks);
  for (const int64_t count : {1, 5}) {
    const int64_t start = c.tokens - count;
    test::GuardedHeads<double> q(count, 4, 24), o(count, 4, 16), lse(count, 4, 1, 0);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t h = 0; h < 4; ++h) {
        for (int64_t i = 0; i < 24; ++i) q.at(t, h, i) = x.q.at(start + t, h, i);
      }
    }
    Stream stream;
    run(stream, NsaSelectedForward{.q = q.view(),
                                   .k = x.k.view(),
                                   .k_shared = x.shared(),
                                   .v = x.v.view(),
                                   .blocks = {blocks.data() + start * c.chosen, DType::kI32, {count, 1, c.chosen}, kCpu},
                                   .select_block = c.select,
                                   .query_start = start,
                                   .scale = kScale,
                                   .o = o.view(),
                                   .lse = {lse.view().data, DType::kF64, {count, 4}, kCpu}});
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t h = 0; h < 4; ++h) {
        for (int64_t i = 0; i < 16; ++i) EXPECT_NEAR(o.at(t, h, i), x.o.at(start + t, h, i), 1e-13);
      }
    }
  }
}

TEST(NsaSelected, SameBitsTwiceAndForAnyThreads) {
  const int before = num_threads();
  for (const Case& c : {Case{2, 130, 4, 4, 32, 16, 32, 1, 16, 4}, Case{1, 600, 4, 1, 16, 8, 16, 1, 32, 5}}) {
    const auto blocks = random_blocks(c);
    auto one = buffers<float>(c), again = buffers<float>(c), two = buffers<float>(c);
    set_num_threads(1);
    for (auto* x : {&one, &again}) {
      forward(*x, c, blocks);
      backward(*x, c, blocks);
    }
    set_num_threads(2);
    forward(two, c, blocks);
    backward(two, c, blocks);
    for (auto* x : {&again, &two}) {
      EXPECT_EQ(one.o.raw(), x->o.raw());
      EXPECT_EQ(one.d_q.raw(), x->d_q.raw());
      EXPECT_EQ(one.d_k.raw(), x->d_k.raw());
      EXPECT_EQ(one.d_v.raw(), x->d_v.raw());
      EXPECT_EQ(one.d_k_shared.raw(), x->d_k_shared.raw());
    }
  }
  set_num_threads(before);
}

TEST(NsaSelected, ABlockPastTheSequenceIsRefused) {
  const Case c{1, 20, 2, 2, 8, 0, 8, 1, 8, 2};
  auto x = buffers<float>(c);
  std::vector<std::int32_t> blocks(40, 0);
  blocks[11] = 3;
  EXPECT_THROW(forward(x, c, blocks), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
