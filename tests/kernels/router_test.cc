// Guards: routing choices (group limit, ties, negative biases, scores that are no numbers, forced ones), gradients of the gates and of
// every balance loss against differences, shares of rows adding up to whole sequences, the stable dispatch plan.
#include "kernels/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
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
  run(stream, RouterForward{.options = options, .logits = logits, .bias = bias, .token = {}, .scores = r.scores, .experts = r.experts, .weights = r.weights});
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

struct Alphas {
  double sequence = 0, expert = 0, device = 0, communication = 0;
};
constexpr Alphas kAllAlphas{.sequence = 0.3, .expert = 0.4, .device = 0.2, .communication = 0.1};

/// Two sequences of six rows, five of each valid, scale 1/2. Holds what the ops write.
class BalanceOps {
 public:
  BalanceOps(const RouterOptions& options, Routed& routed, const Alphas& alphas, std::int64_t begin = 0, std::int64_t end = 12)
      : num_experts_(routed.scores.shape()[1]),
        counts_(Tensor::zeros({num_experts_}, DType::kI64)),
        per_sequence_(Tensor::zeros({2 * (2 * num_experts_ + 4)}, DType::kI64)),
        loss_(Tensor::zeros({1}, DType::kF64)),
        d_scores_(Tensor::empty({end - begin, num_experts_}, DType::kF64)) {
    args_.options = options;
    args_.sequence_alpha = alphas.sequence;
    args_.expert_alpha = alphas.expert;
    args_.device_alpha = alphas.device;
    args_.communication_alpha = alphas.communication;
    args_.scale = 0.5;
    args_.rows = {.batch = 2, .seq = 6, .valid_seq = 5, .row_begin = begin};
    args_.tokens = 5;
    args_.scores = routed.scores.view().rows(begin, end);
    experts_ = routed.experts.view().rows(begin, end);
    args_.chosen = part(0, num_experts_);
    args_.raw_top_k = part(2 * num_experts_, num_experts_);
    args_.sent = part(4 * num_experts_, 4);
    args_.loss = loss_;
    args_.d_scores = d_scores_;
  }

  void count() {
    run(stream_, BalanceCounts{.options = args_.options,
                               .rows = args_.rows,
                               .scores = args_.scores,
                               .experts = experts_,
                               .counts = counts_,
                               .chosen = part(0, num_experts_),
                               .raw_top_k = part(2 * num_experts_, num_experts_),
                               .sent = part(4 * num_experts_, 4)});
  }
  /// Loss by the present counts; fills d_scores.
  double loss() {
    loss_.fill_zero();
    run(stream_, args_);
    return *loss_.as<double>();
  }

  std::span<std::int64_t> per_sequence() { return per_sequence_.span<std::int64_t>(); }
  std::span<const std::int64_t> counts() const { return counts_.span<std::int64_t>(); }
  const Tensor& d_scores() const { return d_scores_; }

 private:
  View part(std::int64_t begin, std::int64_t width) { return per_sequence_.view().rows(begin, begin + 2 * width).reshape({2, width}); }

  Stream stream_;
  std::int64_t num_experts_;
  Tensor counts_, per_sequence_, loss_, d_scores_;
  ConstView experts_;
  BalanceLoss args_;
};

TEST(BalanceLossOp, GradientsAgree) {
  const Tensor logits = normal_tensor({12, 8}, 5, 2.0);
  for (const auto score : {RouterOptions::Score::kSigmoid, RouterOptions::Score::kSoftmax}) {
    const RouterOptions options{.score = score, .top_k = 2, .num_groups = 4, .topk_groups = 2};
    for (const Alphas& alphas : {Alphas{.sequence = 0.3}, Alphas{.expert = 0.3}, Alphas{.device = 0.2, .communication = 0.1}}) {
      Routed r = route(options, logits, {});
      BalanceOps ops(options, r, alphas);
      ops.count();
      EXPECT_GT(ops.loss(), 0);
      const Tensor analytic = ops.d_scores().clone();
      const auto terms = [&] { return std::vector<double>{ops.loss()}; };
      EXPECT_TRUE(gradients_agree({{"scores", r.scores, analytic}}, terms, {.step = 1e-4}));
    }
  }
}

TEST(BalanceLossOp, EvenLoadGivesAlphaAndPaddingDoesNotCount) {
  // Every token scores all experts alike; raw top-K then picks experts 0 .. K-1, so evenness needs K = E.
  const RouterOptions options{.top_k = 4};
  const Tensor logits = Tensor::zeros({12, 4}, DType::kF64);
  Routed r = route(options, logits, {});
  BalanceOps ops(options, r, {.sequence = 0.25});
  ops.count();
  EXPECT_NEAR(ops.loss(), 0.25, 1e-14);  // two sequences, scale 1/2
  for (const std::int64_t count : ops.counts()) EXPECT_EQ(count, 10);
  for (int e = 0; e < 4; ++e) EXPECT_EQ(ops.d_scores().as<double>()[5 * 4 + e], 0.0);
}

TEST(BalanceLossOp, SharesOfTheRowsAddUp) {
  // Cuts inside both sequences and in their padding; some shares hold no row that counts.
  const Tensor logits = normal_tensor({12, 8}, 5, 2.0);
  const RouterOptions options{.top_k = 2, .num_groups = 4, .topk_groups = 2};
  Routed r = route(options, logits, {});
  BalanceOps whole(options, r, kAllAlphas);
  whole.count();
  const double expected = whole.loss();

  std::vector<std::unique_ptr<BalanceOps>> shares;
  const std::int64_t cuts[] = {0, 1, 5, 6, 8, 8, 12};
  std::vector<std::int64_t> counts(8), per_sequence(whole.per_sequence().size());
  for (int i = 0; i < 6; ++i) {
    shares.push_back(std::make_unique<BalanceOps>(options, r, kAllAlphas, cuts[i], cuts[i + 1]));
    shares.back()->count();
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] += shares.back()->counts()[e];
    for (std::size_t k = 0; k < per_sequence.size(); ++k) per_sequence[k] += shares.back()->per_sequence()[k];
  }
  EXPECT_TRUE(std::ranges::equal(counts, whole.counts()));
  EXPECT_TRUE(std::ranges::equal(per_sequence, whole.per_sequence()));
  double loss = 0;
  for (int i = 0; i < 6; ++i) {
    std::ranges::copy(per_sequence, shares[i]->per_sequence().begin());
    loss += shares[i]->loss();
    EXPECT_TRUE(std::ranges::equal(shares[i]->d_scores().span<double>(),
                                   whole.d_scores().view().rows(cuts[i], cuts[i + 1]).span<double>()));
  }
  EXPECT_NEAR(loss, expected, 1e-14 * expected);
}

TEST(Router, ForcedChoicesFollowTheTokenNumber) {
  const Tensor logits = normal_tensor({3, 8}, 5);
  Tensor numbers = Tensor::empty({3}, DType::kI64);
  const std::int64_t tokens[] = {1, 6, 7};
  std::copy(std::begin(tokens), std::end(tokens), numbers.as<std::int64_t>());
  Routed r = route({.top_k = 3}, logits, {});
  Stream stream;
  run(stream, RouterForward{.options = {.top_k = 3, .forced = true}, .logits = logits, .bias = {}, .token = numbers, .scores = r.scores,
                            .experts = r.experts, .weights = r.weights});
  const std::int32_t expected[] = {3, 4, 5, 2, 3, 4, 5, 6, 7};
  EXPECT_TRUE(std::equal(std::begin(expected), std::end(expected), r.experts.as<std::int32_t>()));
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
