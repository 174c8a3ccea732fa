// Flash attention against plain attention written apart, against central differences, and against itself (threads, decode).
#include "kernels/flash_attention.h"

#include "core/parallel_for.h"
#include "tests/kernels/attention_reference.h"

namespace hadal::kernels {
namespace {

using std::int64_t;
using test::AttentionBuffers;
using test::GuardedHeads;

struct Case {
  int64_t batch, tokens, keys, heads, key_heads, width, shared, value;
  AttentionMask mask{};
  int64_t start = 0;
};

AttentionMask blocks(int64_t length, int64_t stride) {
  return {.kind = AttentionMask::Kind::kBlocks, .block_length = length, .block_stride = stride};
}
AttentionMask window(int64_t width) { return {.window = width}; }

// The mask's definition, in words of spec/model.md 8.1 and 8.3.
bool sees(const AttentionMask& mask, int64_t position, int64_t key) {
  if (mask.kind == AttentionMask::Kind::kBlocks) return key * mask.block_stride + mask.block_length - 1 <= position;
  return key <= position && (mask.window == 0 || key > position - mask.window);
}

template <class T>
AttentionBuffers<T> buffers(const Case& c) {
  return {c.batch, c.tokens, c.keys, c.heads, c.key_heads, c.width, c.shared, c.value};
}

template <class T>
void forward(AttentionBuffers<T>& x, const Case& c, double scale) {
  Stream stream;
  run(stream, FlashAttentionForward{.batch = c.batch,
                                    .q = x.q.view(),
                                    .k = x.k.view(),
                                    .k_shared = x.shared(),
                                    .v = x.v.view(),
                                    .mask = c.mask,
                                    .query_start = c.start,
                                    .scale = scale,
                                    .o = x.o.view(),
                                    .lse = x.lse_view()});
}

template <class T>
void backward(AttentionBuffers<T>& x, const Case& c, double scale) {
  Stream stream;
  run(stream, FlashAttentionBackward{.batch = c.batch,
                                     .q = x.q.view(),
                                     .k = x.k.view(),
                                     .k_shared = x.shared(),
                                     .v = x.v.view(),
                                     .mask = c.mask,
                                     .query_start = c.start,
                                     .scale = scale,
                                     .o = x.o.view(),
                                     .lse = x.lse_view(),
                                     .d_o = x.d_o.view(),
                                     .d_q = x.d_q.view(),
                                     .d_k = x.d_k.view(),
                                     .d_k_shared = x.d_shared(),
                                     .d_v = x.d_v.view()});
}

constexpr double kScale = 0.31;

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {1, 1, 1, 1, 1, 8, 0, 8},                      // one token
      {2, 5, 5, 3, 3, 32, 16, 32},                   // MLA: a shared rotated key
      {1, 70, 70, 8, 8, 32, 16, 32},                 // more than one query block
      {1, 300, 300, 2, 2, 48, 0, 32},                // more than two key tiles
      {2, 37, 37, 6, 2, 24, 0, 40},                  // GQA, widths off the vector width
      {1, 33, 33, 8, 1, 40, 8, 24},                  // MQA with a shared key
      {1, 70, 70, 5, 1, 7, 3, 5},                    // one key head, nothing round
      {1, 600, 600, 3, 1, 8, 0, 8},                  // one key head: several parts, partial sums
      {1, 520, 520, 2, 2, 8, 4, 8},                  // parts and a shared key over two heads
      {1, 150, 150, 2, 2, 16, 0, 16, window(2)},     // itself and one before
      {2, 150, 150, 2, 1, 16, 0, 16, window(17)},    // window inside a tile
      {1, 300, 300, 1, 1, 16, 4, 16, window(140)},   // window over tiles
      {1, 40, 3, 2, 2, 16, 4, 8, blocks(16, 8)},     // compressed keys; the first 15 positions see none
      {2, 5, 0, 2, 2, 16, 0, 8, blocks(16, 8)},      // no compressed key at all
      {1, 261, 128, 4, 2, 16, 0, 16, blocks(4, 2)},  // compressed, GQA
      {1, 600, 74, 2, 1, 16, 8, 16, blocks(16, 8)},
      {2, 21, 64, 3, 3, 16, 8, 16, {}, 43},  // queries that start at a position: a chunk of a longer sequence
      {1, 130, 300, 2, 2, 16, 4, 8, {}, 170},
      {1, 600, 700, 2, 1, 8, 4, 8, {}, 100},          // ... in several parts
      {1, 40, 60, 4, 2, 16, 0, 16, window(21), 20},   // ... with the window's halo before them
      {2, 30, 40, 2, 2, 8, 4, 8, blocks(8, 4), 140},  // ... against compressed keys
  };
  return all;
}

void reference(AttentionBuffers<double>& x, const Case& c) {
  test::reference_attention(x, kScale, [&](int64_t, int64_t t, int64_t, int64_t j) { return sees(c.mask, c.start + t, j); });
}

TEST(FlashAttention, EqualsPlainAttentionF64) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(::testing::Message() << "S " << c.tokens << " Sk " << c.keys << " H " << c.heads << " Hk " << c.key_heads
                                      << " w " << c.width << "+" << c.shared << " dv " << c.value);
    auto x = buffers<double>(c), wanted = buffers<double>(c);
    forward(x, c, kScale);
    backward(x, c, kScale);
    reference(wanted, c);
    test::expect_same_attention(x, wanted, 2e-13);
  }
}

// f32 holds 2^-24; sums of a few hundred terms and the exponential leave 2e-6 of the largest element.
TEST(FlashAttention, EqualsPlainAttentionF32) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(::testing::Message() << "S " << c.tokens << " H " << c.heads << " Hk " << c.key_heads << " w " << c.width);
    auto x = buffers<float>(c);
    auto wanted = buffers<double>(c);
    forward(x, c, kScale);
    backward(x, c, kScale);
    reference(wanted, c);
    test::expect_same_attention(x, wanted, 5e-6);
  }
}

TEST(FlashAttention, GradientEqualsCentralDifferences) {
  for (const Case& c : {Case{2, 5, 5, 3, 3, 4, 2, 3}, Case{1, 9, 9, 4, 2, 3, 0, 5, window(3)},
                        Case{1, 14, 5, 2, 1, 3, 2, 3, blocks(4, 2)}, Case{2, 4, 9, 2, 2, 3, 2, 3, {}, 5},
                        Case{1, 5, 7, 4, 2, 3, 0, 5, window(3), 2}, Case{1, 4, 5, 2, 1, 3, 2, 3, blocks(4, 2), 7}}) {
    auto x = buffers<double>(c);
    forward(x, c, kScale);
    backward(x, c, kScale);
    auto moved = buffers<double>(c), numeric = buffers<double>(c);
    const auto loss = [&] {
      forward(moved, c, kScale);
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

TEST(FlashAttention, RowsWithoutVisibleKeyAreZero) {
  const Case c{1, 20, 2, 2, 2, 8, 0, 8, blocks(12, 4)};
  auto x = buffers<float>(c);
  forward(x, c, kScale);
  backward(x, c, kScale);
  for (int64_t t = 0; t < 11; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      EXPECT_EQ(x.lse.at(t, h, 0), -std::numeric_limits<float>::infinity());
      for (int64_t i = 0; i < 8; ++i) {
        EXPECT_EQ(x.o.at(t, h, i), 0.0f);
        EXPECT_EQ(x.d_q.at(t, h, i), 0.0f);
      }
    }
  }
  EXPECT_TRUE(std::isfinite(x.lse.at(11, 0, 0)));
}

TEST(FlashAttention, SameBitsTwiceAndForAnyThreads) {
  const int before = num_threads();
  for (const Case& c : {Case{2, 130, 130, 4, 4, 32, 16, 32}, Case{1, 600, 600, 4, 1, 16, 8, 16}}) {
    set_num_threads(1);
    auto one = buffers<float>(c), again = buffers<float>(c), two = buffers<float>(c);
    for (auto* x : {&one, &again}) {
      forward(*x, c, kScale);
      backward(*x, c, kScale);
    }
    set_num_threads(2);
    forward(two, c, kScale);
    backward(two, c, kScale);
    for (auto* x : {&again, &two}) {
      EXPECT_EQ(one.o.raw(), x->o.raw());
      EXPECT_EQ(one.lse.raw(), x->lse.raw());
      EXPECT_EQ(one.d_q.raw(), x->d_q.raw());
      EXPECT_EQ(one.d_k.raw(), x->d_k.raw());
      EXPECT_EQ(one.d_v.raw(), x->d_v.raw());
      EXPECT_EQ(one.d_k_shared.raw(), x->d_k_shared.raw());
    }
  }
  set_num_threads(before);
}

// Queries of one sequence in two calls, the later first: gradients of the keys add up, of a shorter range of keys in the second
// call.
TEST(FlashAttention, GradientsOfKeysAddUpOverCalls) {
  for (const Case& whole : {Case{1, 140, 140, 4, 2, 16, 8, 16}, Case{1, 600, 600, 4, 1, 8, 4, 8},
                            Case{1, 140, 140, 3, 3, 16, 0, 16, window(50)}, Case{1, 60, 60, 2, 1, 8, 4, 8}}) {
    auto x = buffers<double>(whole), wanted = buffers<double>(whole);
    forward(x, whole, kScale);
    reference(wanted, whole);
    const int64_t middle = whole.tokens / 3;
    Stream stream;
    for (const bool later : {true, false}) {
      const int64_t start = later ? middle : 0, count = later ? whole.tokens - middle : middle, keys = start + count;
      const auto queries = [&](Heads heads) {
        heads.data = heads.as<double>() + start * heads.token_stride;
        heads.tokens = count;
        return heads;
      };
      const auto key_rows = [&](Heads heads) {
        heads.tokens = keys;
        return heads;
      };
      run(stream, FlashAttentionBackward{.q = queries(x.q.view()),
                                         .k = key_rows(x.k.view()),
                                         .k_shared = x.has_shared() ? key_rows(x.k_shared.view()) : Heads{},
                                         .v = key_rows(x.v.view()),
                                         .mask = whole.mask,
                                         .query_start = start,
                                         .scale = kScale,
                                         .o = queries(x.o.view()),
                                         .lse = x.lse_view().rows(start, keys),
                                         .d_o = queries(x.d_o.view()),
                                         .d_q = queries(x.d_q.view()),
                                         .d_k = key_rows(x.d_k.view()),
                                         .d_k_shared = x.has_shared() ? key_rows(x.d_k_shared.view()) : Heads{},
                                         .d_v = key_rows(x.d_v.view()),
                                         .add_to_keys = !later});
    }
    test::expect_same_attention(x, wanted, 2e-13);
  }
}

// Decoding: queries that start at a position equal the rows of the whole run.
TEST(FlashAttention, LaterQueriesEqualTheRowsOfTheWholeRun) {
  for (const Case& whole : {Case{1, 140, 140, 4, 2, 16, 8, 16}, Case{1, 140, 140, 3, 3, 16, 0, 16, window(50)},
                            Case{1, 140, 34, 4, 1, 16, 0, 16, blocks(8, 4)}}) {
    auto x = buffers<double>(whole);
    forward(x, whole, kScale);
    for (const int64_t count : {1, 3, 20}) {
      Case part = whole;
      part.tokens = count;
      part.start = whole.tokens - count;
      auto y = buffers<double>(part);
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t h = 0; h < whole.heads; ++h) {
          for (int64_t i = 0; i < whole.width + whole.shared; ++i) y.q.at(t, h, i) = x.q.at(part.start + t, h, i);
        }
      }
      forward(y, part, kScale);
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t h = 0; h < whole.heads; ++h) {
          EXPECT_NEAR(y.lse.at(t, h, 0), x.lse.at(part.start + t, h, 0), 1e-13);
          for (int64_t i = 0; i < whole.value; ++i) EXPECT_NEAR(y.o.at(t, h, i), x.o.at(part.start + t, h, i), 1e-13);
        }
      }
    }
  }
}

// The absorbed form of MLA: values are the first columns of the keys, in the same memory.
TEST(FlashAttention, KeysAndValuesMayShareMemory) {
  const Case c{2, 40, 40, 4, 1, 24, 0, 16};
  auto x = buffers<double>(c), wanted = buffers<double>(c);
  for (int64_t t = 0; t < 80; ++t) {
    for (int64_t i = 0; i < 16; ++i) wanted.v.at(t, 0, i) = x.k.at(t, 0, i);
  }
  Heads values = x.k.view();
  values.width = 16;
  Stream stream;
  run(stream,
      FlashAttentionForward{
          .batch = 2, .q = x.q.view(), .k = x.k.view(), .v = values, .scale = kScale, .o = x.o.view(), .lse = x.lse_view()});
  run(stream, FlashAttentionBackward{.batch = 2,
                                     .q = x.q.view(),
                                     .k = x.k.view(),
                                     .v = values,
                                     .scale = kScale,
                                     .o = x.o.view(),
                                     .lse = x.lse_view(),
                                     .d_o = x.d_o.view(),
                                     .d_q = x.d_q.view(),
                                     .d_k = x.d_k.view(),
                                     .d_v = x.d_v.view()});
  reference(wanted, c);
  test::expect_same_attention(x, wanted, 2e-13);
}

TEST(FlashAttention, NoFutureTokenIsVisible) {
  const Case c{1, 100, 100, 2, 2, 16, 8, 16};
  auto x = buffers<float>(c), y = buffers<float>(c);
  for (int64_t t = 61; t < 100; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t i = 0; i < 16; ++i) {
        y.k.at(t, h, i) += 5.0f;
        y.v.at(t, h, i) -= 3.0f;
      }
    }
  }
  forward(x, c, kScale);
  forward(y, c, kScale);
  for (int64_t t = 0; t <= 60; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(x.o.at(t, h, i), y.o.at(t, h, i)) << t;
    }
  }
  EXPECT_NE(x.o.at(61, 0, 0), y.o.at(61, 0, 0));
}

// A window of one token: the output is its value, and nothing flows into scores.
TEST(FlashAttention, WindowOfOneCopiesTheValue) {
  const Case c{1, 150, 150, 2, 2, 16, 0, 16, window(1)};
  auto x = buffers<double>(c);
  forward(x, c, kScale);
  backward(x, c, kScale);
  for (int64_t t = 0; t < 150; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t i = 0; i < 16; ++i) {
        EXPECT_NEAR(x.o.at(t, h, i), x.v.at(t, h, i), 1e-15);
        EXPECT_NEAR(x.d_v.at(t, h, i), x.d_o.at(t, h, i), 1e-15);
        EXPECT_NEAR(x.d_q.at(t, h, i), 0.0, 1e-13);
        EXPECT_NEAR(x.d_k.at(t, h, i), 0.0, 1e-13);
      }
    }
  }
}

// Scores far from zero: the running maximum keeps every exponential in range.
TEST(FlashAttention, LargeScoresStayFinite) {
  const Case c{1, 300, 300, 1, 1, 16, 0, 16};
  auto x = buffers<float>(c);
  auto wanted = buffers<double>(c);
  x.q.fill_random(1, 30.0);
  wanted.q.fill_random(1, 30.0);
  forward(x, c, kScale);
  reference(wanted, c);
  EXPECT_LE(test::relative_error(x.o, wanted.o), 1e-4);  // |s| ~ 100, so 2^-24 * 100 in the exponent
}

// A bad number must reach the loss: the maximum of a row may drop it, its probability may not.
TEST(FlashAttention, NanIsNotSwallowed) {
  for (const int64_t tokens : {4, 150}) {
    const Case c{1, tokens, tokens, 1, 1, 16, 0, 16};
    auto x = buffers<float>(c);
    x.k.at(1, 0, 3) = std::numeric_limits<float>::quiet_NaN();
    forward(x, c, kScale);
    backward(x, c, kScale);
    EXPECT_FALSE(std::isnan(x.o.at(0, 0, 0)));
    for (int64_t t = 1; t < tokens; ++t) {
      EXPECT_TRUE(std::isnan(x.o.at(t, 0, 0)) && std::isnan(x.lse.at(t, 0, 0)) && std::isnan(x.d_q.at(t, 0, 0))) << t;
    }
  }
}

TEST(FlashAttention, WrongShapesAreRefused) {
  const Case c{1, 4, 4, 2, 2, 8, 0, 8};
  auto x = buffers<float>(c);
  Stream stream;
  FlashAttentionForward args{.q = x.q.view(), .k = x.k.view(), .v = x.v.view(), .o = x.o.view(), .lse = x.lse_view()};
  args.q.width = 7;
  EXPECT_THROW(run(stream, args), ContractError);
  args.q.width = 8;
  args.k.tokens = 3;
  EXPECT_THROW(run(stream, args), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
