// Guards: RMSNorm, SwiGLU, row moves, AdamW: values against plain formulas, gradients against differences, the same bits for any
// thread count, nothing written outside the outputs.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "core/parallel_for.h"
#include "kernels/adamw.h"
#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "tests/support/gradient_check.h"

namespace hadal::kernels {
namespace {

using test::gradients_agree;
using test::normal_tensor;

Tensor indices(std::initializer_list<std::int32_t> values, Shape shape) {
  Tensor t = Tensor::empty(shape, DType::kI32);
  std::copy(values.begin(), values.end(), t.as<std::int32_t>());
  return t;
}

/// Terms w * y for a fixed random w.
std::vector<double> weighted(ConstView y, ConstView w) {
  std::vector<double> terms(static_cast<std::size_t>(y.numel()));
  for (std::size_t i = 0; i < terms.size(); ++i) terms[i] = y.as<double>()[i] * w.as<double>()[i];
  return terms;
}

class RmsNormSizes : public testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, std::int64_t>> {};

TEST_P(RmsNormSizes, GradientsAgree) {
  const auto [rows, width, extra] = GetParam();
  Stream stream;
  Tensor x = normal_tensor({rows, width + extra}, 1), gain = normal_tensor({width}, 2, 0.3), d_y = normal_tensor({rows, width}, 3);
  const Tensor residual = normal_tensor({rows, width}, 4);
  Tensor y = Tensor::empty({rows, width}, DType::kF64), rho = Tensor::empty({rows}, DType::kF64);
  const RmsNormForward forward{.x = x, .x_stride = width + extra, .gain = gain, .eps = 1e-3, .y = y, .inverse_rms = rho};
  run(stream, forward);
  Tensor d_x = Tensor::zeros({rows, width + extra}, DType::kF64), d_gain = Tensor::zeros({width}, DType::kF64);
  run(stream, RmsNormBackward{.x = x, .x_stride = width + extra, .gain = gain, .inverse_rms = rho, .d_y = d_y, .d_residual = {}, .d_x = d_x,
                              .d_x_stride = width + extra, .d_gain = d_gain});
  const auto terms = [&] {
    run(stream, forward);
    return weighted(y, d_y);
  };
  EXPECT_TRUE(gradients_agree({{"x", x, d_x}, {"gain", gain, d_gain}}, terms));

  Tensor d_sum = Tensor::empty({rows, width}, DType::kF64), again = Tensor::zeros({width}, DType::kF64);
  run(stream, forward);
  run(stream, RmsNormBackward{.x = x, .x_stride = width + extra, .gain = gain, .inverse_rms = rho, .d_y = d_y, .d_residual = residual,
                              .d_x = d_sum, .d_gain = again});
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t i = 0; i < width; ++i) {
      const double expected = d_x.as<double>()[t * (width + extra) + i] + residual.as<double>()[t * width + i];
      EXPECT_NEAR(d_sum.as<double>()[t * width + i], expected, 1e-13);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, RmsNormSizes, testing::Values(std::tuple{1, 1, 0}, std::tuple{3, 7, 0}, std::tuple{5, 19, 3}, std::tuple{70, 8, 1}));

TEST(RmsNorm, BitsDoNotDependOnThreads) {
  Stream stream;
  const Tensor x = normal_tensor({300, 33}, 1, 1.0, DType::kF32), gain = normal_tensor({33}, 2, 1.0, DType::kF32);
  const Tensor d_y = normal_tensor({300, 33}, 3, 1.0, DType::kF32);
  Tensor y = Tensor::empty({300, 33}, DType::kF32), rho = Tensor::empty({300}, DType::kF32), d_x = Tensor::empty({300, 33}, DType::kF32);
  std::vector<Tensor> gains;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    gains.push_back(Tensor::zeros({33}, DType::kF32));
    run(stream, RmsNormForward{.x = x, .gain = gain, .y = y, .inverse_rms = rho});
    run(stream, RmsNormBackward{.x = x, .gain = gain, .inverse_rms = rho, .d_y = d_y, .d_residual = {}, .d_x = d_x, .d_gain = gains.back()});
  }
  set_num_threads(available_cores());
  EXPECT_EQ(std::memcmp(gains[0].view().data, gains[1].view().data, gains[0].bytes()), 0);
  EXPECT_EQ(std::memcmp(gains[0].view().data, gains[2].view().data, gains[0].bytes()), 0);
}

class SwigluSizes : public testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, bool>> {};

TEST_P(SwigluSizes, GradientsAgree) {
  const auto [rows, width, has_weight] = GetParam();
  Stream stream;
  Tensor gate_up = normal_tensor({rows, 2 * width}, 1, 2.0), weight = normal_tensor({rows}, 2);
  const Tensor d_h = normal_tensor({rows, width}, 3);
  Tensor h = Tensor::empty({rows, width}, DType::kF64);
  const SwigluForward forward{.gate_up = gate_up, .row_weight = has_weight ? weight.view() : View{}, .h = h};
  run(stream, forward);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < width; ++i) {
      const double a = gate_up.as<double>()[r * 2 * width + i], b = gate_up.as<double>()[r * 2 * width + width + i];
      const double expected = (has_weight ? weight.as<double>()[r] : 1.0) * a / (1 + std::exp(-a)) * b;
      EXPECT_NEAR(h.as<double>()[r * width + i], expected, 1e-13 * (1 + std::abs(expected)));
    }
  }
  Tensor d_gate_up = Tensor::empty(gate_up.shape(), DType::kF64), d_weight = Tensor::empty({rows}, DType::kF64);
  run(stream, SwigluBackward{.gate_up = gate_up, .row_weight = has_weight ? weight.view() : View{}, .d_h = d_h, .d_gate_up = d_gate_up,
                             .d_row_weight = has_weight ? d_weight.view() : View{}});
  const auto terms = [&] {
    run(stream, forward);
    return weighted(h, d_h);
  };
  std::vector<test::GradientPair> pairs{{"gate_up", gate_up, d_gate_up}};
  if (has_weight) pairs.push_back({"row_weight", weight, d_weight});
  EXPECT_TRUE(gradients_agree(pairs, terms));
}

INSTANTIATE_TEST_SUITE_P(Sizes, SwigluSizes, testing::Values(std::tuple{1, 1, false}, std::tuple{3, 17, true}, std::tuple{40, 8, true}));

TEST(Swiglu, ExtremeGatesStayFinite) {
  Stream stream;
  Tensor gate_up = Tensor::empty({1, 8}, DType::kF32), h = Tensor::empty({1, 4}, DType::kF32);
  const float gates[] = {-1e30f, -200.0f, 200.0f, 0.0f};
  for (int i = 0; i < 4; ++i) {
    gate_up.as<float>()[i] = gates[i];
    gate_up.as<float>()[4 + i] = 1.0f;
  }
  run(stream, SwigluForward{.gate_up = gate_up, .row_weight = {}, .h = h});
  EXPECT_EQ(h.as<float>()[0], 0.0f);
  EXPECT_EQ(h.as<float>()[1], 0.0f);
  EXPECT_FLOAT_EQ(h.as<float>()[2], 200.0f);
  EXPECT_EQ(h.as<float>()[3], 0.0f);
}

TEST(Rows, GatherCombineScatterAreTransposes) {
  Stream stream;
  const Tensor x = normal_tensor({4, 5}, 1);
  const Tensor index = indices({2, -1, 0, 2, 3, 1}, {6});
  Tensor y = Tensor::empty({6, 5}, DType::kF64), back = Tensor::zeros({4, 5}, DType::kF64);
  run(stream, GatherRows{.x = x, .index = index, .y = y});
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(y.as<double>()[i], x.as<double>()[2 * 5 + i]);
    EXPECT_EQ(y.as<double>()[5 + i], 0.0);
  }
  const Tensor d_y = normal_tensor({6, 5}, 2);
  run(stream, ScatterAddRows{.d_y = d_y, .index = index, .d_x = back});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(back.as<double>()[2 * 5 + i], d_y.as<double>()[i] + d_y.as<double>()[3 * 5 + i]);
  const Tensor pairs = indices({5, 0, 1, 4, 2, 3}, {3, 2});
  Tensor sum = Tensor::empty({3, 5}, DType::kF64);
  const Tensor base = normal_tensor({3, 5}, 3);
  run(stream, CombineRows{.x = d_y, .index = pairs, .base = base, .y = sum});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(sum.as<double>()[i], base.as<double>()[i] + d_y.as<double>()[25 + i] + d_y.as<double>()[i]);
}

TEST(Rows, CombineSkipsWhatIsNotThere) {
  Stream stream;
  const Tensor x = normal_tensor({4, 5}, 1), base = normal_tensor({3, 5}, 3);
  const Tensor index = indices({-1, 2, -1, -1, 3, 1}, {3, 2});
  Tensor y = Tensor::empty({3, 5}, DType::kF64), with_base = Tensor::empty({3, 5}, DType::kF64);
  run(stream, CombineRows{.x = x, .index = index, .base = {}, .y = y});
  run(stream, CombineRows{.x = x, .index = index, .base = base, .y = with_base});
  const double* v = x.as<double>();
  for (int i = 0; i < 5; ++i) {
    const double sums[] = {v[10 + i], 0.0, v[15 + i] + v[5 + i]};
    for (int t = 0; t < 3; ++t) EXPECT_EQ(y.as<double>()[t * 5 + i], sums[t]);
    EXPECT_EQ(with_base.as<double>()[i], base.as<double>()[i] + v[10 + i]);
    EXPECT_EQ(with_base.as<double>()[5 + i], base.as<double>()[5 + i]);
    EXPECT_EQ(with_base.as<double>()[10 + i], base.as<double>()[10 + i] + v[15 + i] + v[5 + i]);
  }
}

TEST(Rows, IndexOutOfRangeIsRefused) {
  Stream stream;
  const Tensor x = normal_tensor({4, 5}, 1);
  const Tensor index = indices({4}, {1});
  Tensor y = Tensor::empty({1, 5}, DType::kF64);
  EXPECT_THROW(run(stream, GatherRows{.x = x, .index = index, .y = y}), ContractError);
  EXPECT_THROW(run(stream, CombineRows{.x = x, .index = index.view().reshape({1, 1}), .base = {}, .y = y}), ContractError);
}

TEST(AdamWOp, MatchesTheFormula) {
  Stream stream;
  constexpr std::int64_t kCount = 37;
  Tensor value = normal_tensor({kCount}, 1), m = normal_tensor({kCount}, 2), v = normal_tensor({kCount}, 3), ema = normal_tensor({kCount}, 4);
  for (double& x : v.span<double>()) x = x * x;
  const Tensor grad = normal_tensor({kCount}, 5);
  const Tensor rates = adamw_rates(0.1, 0.9, 0.95, 3);
  const Tensor p0 = value.clone(), m0 = m.clone(), v0 = v.clone(), e0 = ema.clone();
  Tensor norm_squared = Tensor::zeros({1}, DType::kF64);
  *norm_squared.as<double>() = 16;  // clipped to half of it
  run(stream, AdamW{.grad = grad, .value = value, .m = m, .v = v, .ema = ema, .grad_norm_squared = norm_squared, .clip_norm = 2,
                    .rates = rates, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .ema_decay = 0.99});
  for (int i = 0; i < kCount; ++i) {
    const double g = 0.5 * grad.as<double>()[i];
    const double mi = 0.9 * m0.as<double>()[i] + 0.1 * g, vi = 0.95 * v0.as<double>()[i] + 0.05 * g * g;
    const double p = p0.as<double>()[i];
    const double expected = p - 0.1 * ((mi / (1 - std::pow(0.9, 3))) / (std::sqrt(vi / (1 - std::pow(0.95, 3))) + 1e-8) + 0.1 * p);
    EXPECT_NEAR(value.as<double>()[i], expected, 1e-12 * (1 + std::abs(expected)));
    EXPECT_NEAR(ema.as<double>()[i], 0.99 * e0.as<double>()[i] + 0.01 * expected, 1e-13);
  }
}

TEST(AdamWOp, MomentsInBf16AreRoundedToNearestWhenStored) {
  Stream stream;
  constexpr std::int64_t kCount = 1000;
  Tensor value = Tensor::empty({kCount}, DType::kF32), grad = Tensor::empty({kCount}, DType::kF32);
  Tensor m = Tensor::empty({kCount}, DType::kBf16), v = Tensor::empty({kCount}, DType::kBf16);
  const Tensor source = normal_tensor({4 * kCount}, 1);
  for (int i = 0; i < kCount; ++i) {
    const double* x = source.as<double>() + 4 * i;
    value.as<float>()[i] = static_cast<float>(x[0]);
    grad.as<float>()[i] = static_cast<float>(x[1]);
    m.as<Bf16>()[i] = to_bf16(static_cast<float>(x[2]));
    v.as<Bf16>()[i] = to_bf16(static_cast<float>(x[3] * x[3]));
  }
  // First moments of half the gradient: ties between neighbours go to the even one, down and up. NaN stays NaN.
  m.as<Bf16>()[0] = m.as<Bf16>()[1] = to_bf16(0.0f);
  grad.as<float>()[0] = 2 * 1.00390625f;
  grad.as<float>()[1] = 2 * 1.01171875f;
  grad.as<float>()[2] = std::numeric_limits<float>::quiet_NaN();
  // The same in f32 from the same start: what is stored must be its rounding, what is updated must not be rounded.
  Tensor value32 = value.clone(), m32 = Tensor::empty({kCount}, DType::kF32), v32 = Tensor::empty({kCount}, DType::kF32);
  for (int i = 0; i < kCount; ++i) {
    m32.as<float>()[i] = to_float(m.as<Bf16>()[i]);
    v32.as<float>()[i] = to_float(v.as<Bf16>()[i]);
  }
  const Tensor rates = adamw_rates(0.1, 0.5, 0.95, 3);
  AdamW step{.grad = grad, .value = value, .m = m, .v = v, .ema = {}, .rates = rates, .beta1 = 0.5, .weight_decay = 0.1};
  run(stream, step);
  step.value = value32;
  step.m = m32;
  step.v = v32;
  run(stream, step);
  for (int i = 0; i < kCount; ++i) {
    EXPECT_EQ(m.as<Bf16>()[i].bits, to_bf16(m32.as<float>()[i]).bits) << i;
    EXPECT_EQ(v.as<Bf16>()[i].bits, to_bf16(v32.as<float>()[i]).bits) << i;
    if (i != 2) {
      EXPECT_EQ(value.as<float>()[i], value32.as<float>()[i]) << i;
    }
  }
  EXPECT_EQ(to_float(m.as<Bf16>()[0]), 1.0f);
  EXPECT_EQ(to_float(m.as<Bf16>()[1]), 1.015625f);
  EXPECT_TRUE(std::isnan(to_float(m.as<Bf16>()[2])));
}

TEST(AdamWOp, FactorComesFromTheNormAndTheWorkingCopyIsRounded) {
  Stream stream;
  constexpr std::int64_t kCount = 37;
  const Tensor rates = adamw_rates(0.1, 0.9, 0.95, 1);
  const Tensor grad = normal_tensor({kCount}, 5), quarter = normal_tensor({kCount}, 5, 0.25);
  Tensor norm_squared = Tensor::zeros({1}, DType::kF64);
  const auto updated = [&](const Tensor& gradient, std::optional<double> squared, double clip_norm) {
    if (squared) *norm_squared.as<double>() = *squared;
    Tensor value = normal_tensor({kCount}, 1), m = normal_tensor({kCount}, 2), v = normal_tensor({kCount}, 3);
    for (double& x : v.span<double>()) x = x * x;
    Tensor working = Tensor::zeros({kCount}, DType::kBf16);
    run(stream, AdamW{.grad = gradient, .value = value, .m = m, .v = v, .ema = {}, .working = working,
                      .grad_norm_squared = squared ? norm_squared.view() : View{}, .clip_norm = clip_norm, .rates = rates});
    for (int i = 0; i < kCount; ++i) {
      const bool written = std::isfinite(squared.value_or(0));
      EXPECT_EQ(working.as<Bf16>()[i].bits, written ? to_bf16(static_cast<float>(value.as<double>()[i])).bits : std::uint16_t{0});
    }
    return value;
  };
  const auto same = [](const Tensor& a, const Tensor& b) { return std::memcmp(a.view().data, b.view().data, a.bytes()) == 0; };
  EXPECT_TRUE(same(updated(grad, 16, 1), updated(quarter, std::nullopt, 0)));
  EXPECT_TRUE(same(updated(grad, 0.25, 1), updated(grad, std::nullopt, 0)));
  EXPECT_TRUE(same(updated(grad, 16, 0), updated(grad, std::nullopt, 0)));
  EXPECT_FALSE(same(updated(grad, 16, 1), updated(grad, std::nullopt, 0)));
  EXPECT_TRUE(same(updated(grad, std::numeric_limits<double>::quiet_NaN(), 1), normal_tensor({kCount}, 1)));
  EXPECT_TRUE(same(updated(grad, std::numeric_limits<double>::infinity(), 1), normal_tensor({kCount}, 1)));
}

TEST(SumSquares, AccumulatesInDouble) {
  Stream stream;
  Tensor x = Tensor::empty({100000}, DType::kF32);
  for (float& value : x.span<float>()) value = 0.1f;
  Tensor sum = Tensor::zeros({1}, DType::kF64);
  run(stream, SumSquares{.x = x, .result = sum});
  run(stream, SumSquares{.x = x, .result = sum});
  EXPECT_NEAR(*sum.as<double>(), 2 * 100000 * static_cast<double>(0.1f) * static_cast<double>(0.1f), 1e-8);
}

}  // namespace
}  // namespace hadal::kernels
