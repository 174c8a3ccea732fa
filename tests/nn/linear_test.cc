// A linear layer's three products, as the gradient contract of every layer asks; that a gradient begins anew where it is asked to, by its
// first share or as zeros; and that the checker itself can fail.
#include "nn/linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

Tensor copy_of(ConstView view) {
  Tensor copy = Tensor::empty(view.shape, view.dtype);
  std::memcpy(copy.view().data, view.data, copy.bytes());
  return copy;
}

TEST(Linear, GradientsMatchDifferences) {
  Stream stream;
  nn::Linear layer("w", 5, 7, 0.5, DType::kF64);
  layer.weight().initialize(3);
  nn::Context ctx{stream, 2, 3};
  Tensor x = test::normal_tensor({6, 7}, 1);
  EXPECT_TRUE(test::layer_gradients_agree(layer, ctx, x));
}

TEST(Linear, FirstShareOfAGradientOverwritesAndLaterOnesAdd) {
  Stream stream;
  nn::Linear layer("w", 5, 7, 0.5, DType::kF64);
  const Tensor x = test::normal_tensor({6, 7}, 1), d_y = test::normal_tensor({6, 5}, 2);
  layer.accumulate(stream, d_y, x);
  const Tensor once = copy_of(layer.weight().grad());
  layer.accumulate(stream, d_y, x);
  for (std::int64_t i = 0; i < once.numel(); ++i) EXPECT_NEAR(layer.weight().grad().as<double>()[i], 2 * once.as<double>()[i], 1e-13);
  layer.weight().zero_grad();
  layer.accumulate(stream, d_y, x);
  EXPECT_EQ(std::memcmp(layer.weight().grad().data, once.view().data, once.bytes()), 0);
  layer.weight().zero_grad();
  for (const double value : layer.weight().grad().span<double>()) EXPECT_EQ(value, 0);
  layer.accumulate(stream, d_y, x);
  EXPECT_EQ(std::memcmp(layer.weight().grad().data, once.view().data, once.bytes()), 0);
}

/// A linear layer with a gradient that is wrong by one part in a million in one element.
class WrongLinear : public nn::Linear {
 public:
  using Linear::Linear;
  Tensor backward_input(nn::Context& ctx, ConstView d_y, nn::Saved& saved) override {
    Tensor d_x = Linear::backward_input(ctx, d_y, saved);
    d_x.as<double>()[4] *= 1 + 1e-6;
    return d_x;
  }
};

TEST(GradientCheck, FailsOnASmallError) {
  Stream stream;
  WrongLinear layer("w", 5, 7, 0.5, DType::kF64);
  layer.weight().initialize(3);
  nn::Context ctx{stream, 1, 6};
  Tensor x = test::normal_tensor({6, 7}, 1);
  EXPECT_FALSE(test::layer_gradients_agree(layer, ctx, x));
}

/// A linear layer that overwrites its weight's gradient.
class OverwritingLinear : public nn::Linear {
 public:
  using Linear::Linear;
  void backward_weight(nn::Context& ctx, nn::Saved& saved) override {
    weight().zero_grad();
    Linear::backward_weight(ctx, saved);
  }
};

TEST(GradientCheck, FailsWhenGradientsDoNotAccumulate) {
  Stream stream;
  OverwritingLinear layer("w", 5, 7, 0.5, DType::kF64);
  layer.weight().initialize(3);
  nn::Context ctx{stream, 1, 6};
  Tensor x = test::normal_tensor({6, 7}, 1);
  EXPECT_FALSE(test::layer_gradients_agree(layer, ctx, x));
}

}  // namespace
}  // namespace hadal
