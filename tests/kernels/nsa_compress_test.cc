// Gated pooling of NSA blocks against its formula and against central differences.
#include "core/parallel_for.h"
#include "kernels/nsa.h"
#include "tests/kernels/attention_reference.h"

namespace hadal::kernels {
namespace {

using std::int64_t;
using test::GuardedHeads;

struct Case {
  int64_t batch, tokens, groups, width, length, stride;
  int64_t blocks() const { return num_compressed(tokens, length, stride); }
};

template <class T>
struct Buffers {
  explicit Buffers(const Case& c)
      : x(c.batch * c.tokens, c.groups, c.width),
        logits(c.batch * c.tokens, c.groups, c.width),
        position(c.length, 1, c.width, 0),
        y(c.batch * c.blocks(), c.groups, c.width),
        d_y(c.batch * c.blocks(), c.groups, c.width),
        d_x(c.batch * c.tokens, c.groups, c.width),
        d_logits(c.batch * c.tokens, c.groups, c.width),
        d_position(c.length, 1, c.width, 0) {
    x.fill_random(11);
    logits.fill_random(12);
    position.fill_random(13);
    d_y.fill_random(14);
    for (int64_t j = 0; j < c.length; ++j) {
      for (int64_t i = 0; i < c.width; ++i) d_position.at(j, 0, i) = 0;
    }
  }
  View view(GuardedHeads<T>& of) { return {of.view().data, kDTypeOf<T>, {of.tokens(), of.width()}, kCpu}; }
  GuardedHeads<T> x, logits, position, y, d_y, d_x, d_logits, d_position;
};

template <class T>
void forward(const Case& c, Buffers<T>& b) {
  Stream stream;
  run(stream, NsaCompressForward{.batch = c.batch,
                                 .block_length = c.length,
                                 .block_stride = c.stride,
                                 .x = b.x.view(),
                                 .logits = b.logits.view(),
                                 .position = b.view(b.position),
                                 .y = b.y.view()});
}

template <class T>
void backward(const Case& c, Buffers<T>& b) {
  Stream stream;
  run(stream, NsaCompressBackward{.batch = c.batch,
                                  .block_length = c.length,
                                  .block_stride = c.stride,
                                  .x = b.x.view(),
                                  .logits = b.logits.view(),
                                  .position = b.view(b.position),
                                  .d_y = b.d_y.view(),
                                  .d_x = b.d_x.view(),
                                  .d_logits = b.d_logits.view(),
                                  .d_position = b.view(b.d_position)});
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{{1, 4, 1, 5, 4, 2}, {2, 11, 3, 6, 4, 2}, {1, 40, 2, 70, 8, 4}, {2, 33, 1, 16, 8, 8}};
  return all;
}

TEST(NsaCompress, EqualsTheFormula) {
  for (const Case& c : cases()) {
    Buffers<double> b(c);
    Buffers<float> single(c);
    forward(c, b);
    forward(c, single);
    GuardedHeads<double> wanted(c.batch * c.blocks(), c.groups, c.width);
    for (int64_t s = 0; s < c.batch; ++s) {
      for (int64_t i = 0; i < c.blocks(); ++i) {
        for (int64_t g = 0; g < c.groups; ++g) {
          for (int64_t ch = 0; ch < c.width; ++ch) {
            double total = 0, sum = 0;
            for (int64_t j = 0; j < c.length; ++j) {
              const int64_t token = s * c.tokens + i * c.stride + j;
              const double e = std::exp(b.logits.at(token, g, ch) + b.position.at(j, 0, ch));
              total += e;
              sum += e * b.x.at(token, g, ch);
            }
            wanted.at(s * c.blocks() + i, g, ch) = sum / total;
          }
        }
      }
    }
    EXPECT_LE(test::relative_error(b.y, wanted), 1e-14);
    EXPECT_LE(test::relative_error(single.y, wanted), 1e-6);
    EXPECT_TRUE(b.y.guards_intact() && single.y.guards_intact());
  }
}

TEST(NsaCompress, ZeroLogitsAreMeanPooling) {
  const Case c{1, 8, 1, 3, 4, 4};
  Buffers<double> b(c);
  for (int64_t t = 0; t < 8; ++t) {
    for (int64_t i = 0; i < 3; ++i) {
      b.logits.at(t, 0, i) = 0;
      if (t < 4) b.position.at(t, 0, i) = 0;
    }
  }
  forward(c, b);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(b.y.at(1, 0, i), (b.x.at(4, 0, i) + b.x.at(5, 0, i) + b.x.at(6, 0, i) + b.x.at(7, 0, i)) / 4, 1e-15);
  }
}

TEST(NsaCompress, GradientEqualsCentralDifferences) {
  for (const Case& c : {Case{1, 4, 1, 5, 4, 2}, Case{2, 11, 3, 3, 4, 2}, Case{2, 9, 1, 4, 4, 4}}) {
    Buffers<double> b(c), moved(c), numeric(c);
    backward(c, b);
    const auto loss = [&] {
      forward(c, moved);
      return test::weighted_sum(moved.y, moved.d_y);
    };
    test::numeric_gradient(moved.x, numeric.d_x, loss);
    test::numeric_gradient(moved.logits, numeric.d_logits, loss);
    test::numeric_gradient(moved.position, numeric.d_position, loss);
    EXPECT_LE(test::relative_error(b.d_x, numeric.d_x), 1e-7);
    EXPECT_LE(test::relative_error(b.d_logits, numeric.d_logits), 1e-7);
    EXPECT_LE(test::relative_error(b.d_position, numeric.d_position), 1e-7);
    EXPECT_TRUE(b.d_x.guards_intact() && b.d_logits.guards_intact());
  }
}

TEST(NsaCompress, SinglePrecisionGradientEqualsDouble) {
  for (const Case& c : cases()) {
    Buffers<double> b(c);
    Buffers<float> single(c);
    backward(c, b);
    backward(c, single);
    EXPECT_LE(test::relative_error(single.d_x, b.d_x), 2e-6);
    EXPECT_LE(test::relative_error(single.d_logits, b.d_logits), 2e-6);
    EXPECT_LE(test::relative_error(single.d_position, b.d_position), 2e-6);
  }
}

TEST(NsaCompress, PositionGradientAccumulatesAndTheOthersOverwrite) {
  const Case c{2, 11, 2, 6, 4, 2};
  Buffers<double> once(c), twice(c);
  backward(c, once);
  backward(c, twice);
  backward(c, twice);
  EXPECT_EQ(once.d_x.raw(), twice.d_x.raw());
  EXPECT_EQ(once.d_logits.raw(), twice.d_logits.raw());
  EXPECT_NEAR(twice.d_position.at(1, 0, 2), 2 * once.d_position.at(1, 0, 2), 1e-14);
}

TEST(NsaCompress, TooFewTokensGiveNothing) {
  const Case c{2, 3, 1, 4, 4, 2};
  ASSERT_EQ(c.blocks(), 0);
  Buffers<double> b(c);
  forward(c, b);
  backward(c, b);
  EXPECT_EQ(b.d_x.at(0, 0, 0), 0.0);
  EXPECT_EQ(b.d_logits.at(5, 0, 3), 0.0);
}

TEST(NsaCompress, SameBitsForAnyThreads) {
  const int before = num_threads();
  const Case c{3, 40, 2, 70, 8, 4};
  Buffers<float> one(c), two(c);
  set_num_threads(1);
  forward(c, one);
  backward(c, one);
  set_num_threads(2);
  forward(c, two);
  backward(c, two);
  set_num_threads(before);
  EXPECT_EQ(one.y.raw(), two.y.raw());
  EXPECT_EQ(one.d_x.raw(), two.d_x.raw());
  EXPECT_EQ(one.d_logits.raw(), two.d_logits.raw());
  EXPECT_EQ(one.d_position.raw(), two.d_position.raw());
}

}  // namespace
}  // namespace hadal::kernels
