// Rotary embedding: the pairs' layout, YaRN's published numbers, strides, positions, and the transpose as gradient.
#include "nn/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

using kernels::ConstHeads;
using kernels::Heads;
using kernels::heads_of;

TEST(Rope, TurnsInterleavedPairsByPosition) {
  Stream stream;
  const nn::RopeTable table(32, 6, {.theta = 100.0, .yarn = {}}, DType::kF64);
  const std::int64_t batch = 2, seq = 3, heads = 2, total = 9;
  Tensor x = test::normal_tensor({batch * seq, heads * total}, 1);
  const Tensor before = x.clone();
  table.apply(stream, batch, heads_of(x.view(), heads, total, 2, 6), heads_of(x.view(), heads, total, 2, 6),
              nn::RopeMode::kForward, 5, 4);
  for (std::int64_t t = 0; t < batch * seq; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const double* in = before.as<double>() + (t * heads + h) * total;
      const double* out = x.as<double>() + (t * heads + h) * total;
      EXPECT_EQ(in[0], out[0]);
      EXPECT_EQ(in[8], out[8]);
      for (int i = 0; i < 3; ++i) {
        const double angle = static_cast<double>(5 + 4 * (t % seq)) * std::pow(100.0, -2.0 * i / 6.0);
        const double a = in[2 + 2 * i], b = in[3 + 2 * i];
        EXPECT_NEAR(out[2 + 2 * i], a * std::cos(angle) - b * std::sin(angle), 1e-14);
        EXPECT_NEAR(out[3 + 2 * i], a * std::sin(angle) + b * std::cos(angle), 1e-14);
      }
    }
  }
}

TEST(Rope, TransposeUndoesAndAddsOutOfPlace) {
  Stream stream;
  const nn::RopeTable table(16, 8, {}, DType::kF64);
  const Tensor x = test::normal_tensor({10, 3 * 8}, 2);
  Tensor y = Tensor::empty({10, 3 * 8}, DType::kF64);
  const ConstHeads x_heads = heads_of(x.view(), 3, 8, 0, 8);
  const Heads y_heads = heads_of(y.view(), 3, 8, 0, 8);
  table.apply(stream, 1, x_heads, y_heads);
  EXPECT_GT(test::relative_difference(y, x), 0.1);
  Tensor sum = x.clone();
  table.apply(stream, 1, y_heads, heads_of(sum.view(), 3, 8, 0, 8), nn::RopeMode::kAddTranspose);
  for (std::int64_t i = 0; i < x.numel(); ++i) EXPECT_NEAR(sum.as<double>()[i], 2 * x.as<double>()[i], 1e-14);
  table.apply(stream, 1, y_heads, y_heads, nn::RopeMode::kTranspose);
  EXPECT_LT(test::relative_difference(y, x), 1e-14);
}

// Widths around the vector lanes, in single: in place and out of place agree with f64.
TEST(Rope, EveryWidth) {
  Stream stream;
  for (const std::int64_t width : {2, 10, 16, 30, 34, 64}) {
    const nn::RopeTable exact(64, width, {}, DType::kF64), single(64, width, {}, DType::kF32);
    Tensor x = test::normal_tensor({40, 3 * width}, 2), x32 = test::normal_tensor({40, 3 * width}, 2, 1.0, DType::kF32);
    Tensor out = Tensor::empty({40, 3 * width}, DType::kF32);
    exact.apply(stream, 1, heads_of(x.view(), 3, width, 0, width), heads_of(x.view(), 3, width, 0, width));
    single.apply(stream, 1, heads_of(x32.view(), 3, width, 0, width), heads_of(out.view(), 3, width, 0, width));
    single.apply(stream, 1, heads_of(x32.view(), 3, width, 0, width), heads_of(x32.view(), 3, width, 0, width));
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      EXPECT_NEAR(static_cast<double>(x32.as<float>()[i]), x.as<double>()[i], 2e-6);
      EXPECT_NEAR(static_cast<double>(out.as<float>()[i]), x.as<double>()[i], 2e-6);
    }
  }
}

TEST(Rope, YarnMatchesThePublishedNumbers) {
  nn::RopeOptions options{.theta = 1e4, .yarn = {.factor = 40.0}};
  EXPECT_NEAR(nn::softmax_scale(192, options), 0.135234, 5e-7);
  options.yarn.mscale = options.yarn.mscale_all_dim = 0.707;
  EXPECT_NEAR(nn::softmax_scale(192, options) * std::sqrt(192.0), 1.5896, 5e-5);
  const auto frequencies = nn::rope_frequencies(64, options);
  // The ramp runs from pair 10 to pair 23: kept below, divided by the factor above.
  EXPECT_DOUBLE_EQ(frequencies[10], std::pow(1e4, -20.0 / 64));
  EXPECT_LT(frequencies[11], std::pow(1e4, -22.0 / 64));
  EXPECT_GT(frequencies[22], std::pow(1e4, -44.0 / 64) / 40);
  EXPECT_DOUBLE_EQ(frequencies[23], std::pow(1e4, -46.0 / 64) / 40);
  // Equal mscales leave cosines alone; unequal ones scale them.
  const nn::RopeTable even(2, 64, options, DType::kF64);
  EXPECT_EQ(even.cosines().as<double>()[0], 1.0);
  options.yarn.mscale_all_dim = 0.0;
  const nn::RopeTable scaled(2, 64, options, DType::kF64);
  EXPECT_NEAR(scaled.cosines().as<double>()[0], 0.1 * 0.707 * std::log(40.0) + 1, 1e-15);
}

TEST(Rope, OffWithoutYarn) {
  EXPECT_DOUBLE_EQ(nn::softmax_scale(64, {}), 0.125);
  EXPECT_DOUBLE_EQ(nn::rope_frequencies(8, {})[3], std::pow(1e4, -6.0 / 8));
}

TEST(Rope, PositionsBeyondTheTableAreRefused) {
  Stream stream;
  const nn::RopeTable table(4, 2, {}, DType::kF32);
  Tensor x = Tensor::zeros({5, 2}, DType::kF32);
  const Heads heads = heads_of(x.view(), 1, 2, 0, 2);
  EXPECT_THROW(table.apply(stream, 1, heads, heads), ContractError);
}

}  // namespace
}  // namespace hadal
