// Guards: routing choices (group limit, ties, negative biases, scores that are no numbers), gradients of the gates and of every balance loss against differences,
// the stable dispatch plan.
#include "kernels/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "tests/support/gradient_check.h"

namespace hadal::kernels {
namespace {

using test::gradients_agree;
using test::normal_tensor;

struct Routed {
  Tensor scores, experts, weights;
};

Routed route(const RouterOptions& options, ConstView logits, ConstView bias) {
  const std::int64_t tokens = logits.shape[0];
  Routed r{Tensor::empty(logits.shape, logits.dtype), Tensor::empty({tokens, options.top_k}, DType::kI32),
           Tensor::empty({tokens, options.top_k}, logits.dtype)};
  Stream stream;
  run(stream, RouterForward{.options = options, .logits = logits, .bias = bias, .scores = r.scores, .experts = r.experts, .weights = r.weights});
  return r;
}

Tensor bias_of(std::initializer_list<float> values) {
  Tensor bias = Tensor::empty({static_cast<std::int64_t>(values.size())}, DType::kF32);
  std::copy(values.begin(), values.end(), bias.as<float>());
  return bias;
}

TEST(Router, MaskedGroupsNeverWinAgainstNegativeBiases) {
  // Group 0 (experts 0, 1) is kept for its two large scores although its third choice would be below zero.
  Tensor logits = Tensor::zeros({1, 6}, DType::kF64);
  const double values[] = {3, 2, 1, 1, 0, 0};
  std::copy(std::begin(values), std::end(values), logits.as<double>());
  const Tensor bias = bias_of({-5, -5, -9, -9, -9, -9});
  const Routed r = route({.top_k = 2, .num_groups = 3, .topk_groups = 1}, logits, bias);
  EXPECT_EQ(r.experts.as<std::int32_t>()[0], 0);
  EXPECT_EQ(r.experts.as<std::int32_t>()[1], 1);
}

TEST(Router, TiesGoToTheLowerIndex) {
  const Tensor logits = Tensor::zeros({2, 8}, DType::kF32);
  const Routed r = route({.top_k = 3, .num_groups = 4, .topk_groups = 2}, logits, {});
  for (int t = 0; t < 2; ++t) {
    for (int k = 0; k < 3; ++k) EXPECT_EQ(r.experts.as<std::int32_t>()[t * 3 + k], k);
  }
}

TEST(Router, NotANumberGoesThroughToTheWeights) {
  // A diverged step is judged at its loss; the router must neither stop nor choose an expert twice.
  for (const auto score : {RouterOptions::Score::kSigmoid, RouterOptions::Score::kSoftmax}) {
    Tensor logits = normal_tensor({3, 8}, 5);
    double* values = logits.as<double>();
    std::fill(values, values + 8, std::nan(""));
    values[8 + 2] = std::nan("");
    const Routed r = route({.score = score, .top_k = 4, .num_groups = 4, .topk_groups = 2}, logits, {});
    for (int t = 0; t < 3; ++t) {
      const auto* e = r.experts.as<std::int32_t>() + t * 4;
      EXPECT_EQ(std::set<std::int32_t>(e, e + 4).size(), 4u) << "token " << t;
      for (int k = 0; k < 4; ++k) EXPECT_TRUE(e[k] >= 0 && e[k] < 8);
    }
    for (int k = 0; k < 4; ++k) {
      EXPECT_TRUE(std::isnan(r.weights.as<double>()[k]));
      EXPECT_TRUE(std::isfinite(r.weights.as<double>()[8 + k]));
    }
  }
}

TEST(Router, WeightsComeFromScoresWithoutBias) {
  Tensor logits = normal_tensor({5, 6}, 3);
  const Tensor bias = bias_of({9, 0, 0, 9, 0, 0});
  const Routed r = route({.top_k = 2, .normalize = true, .scaling = 2.5}, logits, bias);
  for (int t = 0; t < 5; ++t) {
    const auto* e = r.experts.as<std::int32_t>() + t * 2;
    EXPECT_EQ(std::min(e[0], e[1]), 0);
    EXPECT_EQ(std::max(e[0], e[1]), 3);
    const double s0 = 1 / (1 + std::exp(-logits.as<double>()[t * 6 + e[0]])), s1 = 1 / (1 + std::exp(-logits.as<double>()[t * 6 + e[1]]));
    EXPECT_NEAR(r.weights.as<double>()[t * 2], 2.5 * s0 / (s0 + s1), 1e-14);
  }
}

class RouterGradient : public testing::TestWithParam<std::tuple<RouterOptions::Score, bool>> {};

TEST_P(RouterGradient, AgreesWithDifferences) {
  const auto [score, normalize] = GetParam();
  const RouterOptions options{.score = score, .group_score = RouterOptions::GroupScore::kMax, .top_k = 3, .num_groups = 2, .topk_groups = 1,
                              .normalize = normalize, .scaling = 1.7};
  Tensor logits = normal_tensor({4, 8}, 5, 2.0);
  const Tensor d_weights = normal_tensor({4, 3}, 6), d_scores = normal_tensor({4, 8}, 7);
  const Routed r = route(options, logits, {});
  Tensor d_logits = Tensor::empty({4, 8}, DType::kF64);
  Stream stream;
  run(stream, RouterBackward{.options = options, .scores = r.scores, .experts = r.experts, .d_weights = d_weights, .d_scores = d_scores, .d_logits = d_logits});
  const auto terms = [&] {
    const Routed now = route(options, logits, {});
    std::vector<double> t;
    for (int i = 0; i < 12; ++i) t.push_back(now.weights.as<double>()[i] * d_weights.as<double>()[i]);
    for (int i = 0; i < 32; ++i) t.push_back(now.scores.as<double>()[i] * d_scores.as<double>()[i]);
    return t;
  };
  EXPECT_TRUE(gradients_agree({{"logits", logits, d_logits}}, terms));
}

INSTANTIATE_TEST_SUITE_P(Forms, RouterGradient, testing::Combine(testing::Values(RouterOptions::Score::kSigmoid, RouterOptions::Score::kSoftmax), testing::Bool()));

BalanceLoss balance_args(const RouterOptions& options, Routed& r, Tensor& counts, Tensor& loss, Tensor& d_scores) {
  return {.options = options, .batch = 2, .valid_seq = 5, .scale = 0.5, .scores = r.scores, .experts = r.experts, .counts = counts, .loss = loss, .d_scores = d_scores};
}

/// Loss as a function of the scores, choices held.
void expect_gradient(BalanceLoss args, Routed& r, Tensor& loss, Tensor& d_scores) {
  Stream stream;
  loss.fill_zero();
  run(stream, args);
  EXPECT_GT(*loss.as<double>(), 0);
  const Tensor analytic = d_scores.clone();
  const auto terms = [&] {
    loss.fill_zero();
    run(stream, args);
    return std::vector<double>{*loss.as<double>()};
  };
  EXPECT_TRUE(gradients_agree({{"scores", r.scores, analytic}}, terms, {.step = 1e-4}));
}

TEST(BalanceLossOp, GradientsAgree) {
  const Tensor logits = normal_tensor({12, 8}, 5, 2.0);
  for (const auto score : {RouterOptions::Score::kSigmoid, RouterOptions::Score::kSoftmax}) {
    const RouterOptions options{.score = score, .top_k = 2, .num_groups = 4, .topk_groups = 2};
    Routed r = route(options, logits, {});
    Tensor counts = Tensor::zeros({8}, DType::kI64), loss = Tensor::zeros({1}, DType::kF64), d_scores = Tensor::empty({12, 8}, DType::kF64);
    BalanceLoss args = balance_args(options, r, counts, loss, d_scores);
    args.sequence_alpha = 0.3;
    expect_gradient(args, r, loss, d_scores);
    args.sequence_alpha = 0;
    args.expert_alpha = 0.3;
    expect_gradient(args, r, loss, d_scores);
    args.expert_alpha = 0;
    args.device_alpha = 0.2;
    args.communication_alpha = 0.1;
    args.num_devices = 4;
    expect_gradient(args, r, loss, d_scores);
  }
}

TEST(BalanceLossOp, EvenLoadGivesAlphaAndPaddingDoesNotCount) {
  // Every token scores all experts alike; raw top-K then picks experts 0 .. K-1, so evenness needs K = E.
  const RouterOptions options{.top_k = 4};
  const Tensor logits = Tensor::zeros({12, 4}, DType::kF64);
  Routed r = route(options, logits, {});
  Tensor counts = Tensor::zeros({4}, DType::kI64), loss = Tensor::zeros({1}, DType::kF64), d_scores = Tensor::empty({12, 4}, DType::kF64);
  BalanceLoss args = balance_args(options, r, counts, loss, d_scores);
  args.sequence_alpha = 0.25;
  Stream stream;
  run(stream, args);
  EXPECT_NEAR(*loss.as<double>(), 0.25, 1e-14);  // two sequences, scale 1/2
  for (int e = 0; e < 4; ++e) EXPECT_EQ(counts.as<std::int64_t>()[e], 10);
  for (int e = 0; e < 4; ++e) EXPECT_EQ(d_scores.as<double>()[5 * 4 + e], 0.0);
}

TEST(Dispatch, IsAStableSortByExpert) {
  Tensor experts = Tensor::empty({5, 2}, DType::kI32);
  const std::int32_t chosen[] = {3, 0, 0, 3, 1, 3, 0, 1, 3, 0};
  std::copy(std::begin(chosen), std::end(chosen), experts.as<std::int32_t>());
  Tensor offsets = Tensor::empty({6}, DType::kI64), token = Tensor::empty({10}, DType::kI32), pair = Tensor::empty({10}, DType::kI32),
         row = Tensor::empty({5, 2}, DType::kI32);
  Stream stream;
  run(stream, DispatchPlan{.num_experts = 5, .experts = experts, .offsets = offsets, .row_token = token, .row_pair = pair, .pair_row = row});
  const std::int64_t expected[] = {0, 4, 6, 6, 10, 10};
  EXPECT_TRUE(std::equal(std::begin(expected), std::end(expected), offsets.as<std::int64_t>()));
  std::vector<std::int32_t> order(10);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](std::int32_t p) { return chosen[p]; });
  for (int r = 0; r < 10; ++r) {
    EXPECT_EQ(pair.as<std::int32_t>()[r], order[r]);
    EXPECT_EQ(token.as<std::int32_t>()[r], order[r] / 2);
    EXPECT_EQ(row.as<std::int32_t>()[order[r]], r);
  }
}

}  // namespace
}  // namespace hadal::kernels
