// Guards: the CUDA router against the CPU in f64: the same choices in the same order for logits whose gaps f32 can tell (asserted here),
// with biases, groups and ties, forced ones, scores that are no numbers; weights and gradients within f32 rounding.
#include "kernels/router.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/rng.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

using kernels::RouterOptions;
using Score = RouterOptions::Score;
using GroupScore = RouterOptions::GroupScore;

struct Case {
  std::int64_t tokens, num_experts;
  RouterOptions options;
  bool bias = false;
};

/// Least distance between neighbours among the `count` + 1 largest.
double least_gap(std::vector<double> values, std::int64_t count) {
  std::ranges::sort(values, std::greater<>());
  double least = 1;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count) && i + 1 < values.size(); ++i) least = std::min(least, values[i] - values[i + 1]);
  return least;
}

/// How near two values come between which the router of one token decides.
double gap_of(const RouterOptions& o, std::vector<double> logits, const std::vector<double>& bias) {
  const std::size_t num_experts = logits.size(), size = num_experts / static_cast<std::size_t>(o.num_groups);
  const double top = std::ranges::max(logits);
  double sum = 0;
  for (double& x : logits) sum += x = o.score == Score::kSigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x - top);
  for (std::size_t e = 0; e < num_experts; ++e) logits[e] = (o.score == Score::kSigmoid ? logits[e] : logits[e] / sum) + bias[e];
  std::vector<double> groups;
  for (std::size_t g = 0; g < num_experts; g += size) {
    std::vector<double> members(logits.begin() + static_cast<std::ptrdiff_t>(g), logits.begin() + static_cast<std::ptrdiff_t>(g + size));
    std::ranges::sort(members, std::greater<>());
    groups.push_back(o.group_score == GroupScore::kTopTwoSum && size > 1 ? members[0] + members[1] : members[0]);
  }
  std::vector<double> sorted = groups, kept;
  std::ranges::sort(sorted, std::greater<>());
  const double least = sorted[static_cast<std::size_t>(o.topk_groups) - 1];
  for (std::size_t e = 0; e < num_experts; ++e) {
    if (groups[e / size] >= least) kept.push_back(logits[e]);
  }
  return std::min(o.topk_groups < o.num_groups ? least_gap(groups, o.topk_groups) : 1.0, least_gap(kept, o.top_k));
}

/// Logits of which each token's were drawn again until no decision is nearer than f32 can tell.
Twin clear_logits(const Case& c, const std::vector<double>& bias, std::uint64_t seed) {
  constexpr double kClear = 4e-6;
  Tensor logits = Tensor::empty({c.tokens, c.num_experts}, DType::kF64);
  const Random random(seed, RandomPurpose::kSynthetic, 3);
  std::uint64_t next = 0;
  std::vector<double> row(static_cast<std::size_t>(c.num_experts));
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    do {
      for (double& x : row) x = static_cast<double>(static_cast<float>(1.5 * random.normal(next++)));
    } while (gap_of(c.options, row, bias) < kClear);
    std::ranges::copy(row, logits.as<double>() + t * c.num_experts);
  }
  return {std::move(logits), DType::kF32};
}

/// F32 on both sides.
struct Bias {
  Tensor host, device;
  std::vector<double> values;

  Bias(std::int64_t count, bool present) : values(static_cast<std::size_t>(count)) {
    if (!present) return;
    host = Tensor::empty({count}, DType::kF32);
    const Random random(11, RandomPurpose::kSynthetic, 4);
    for (std::size_t e = 0; e < values.size(); ++e) {
      host.as<float>()[e] = static_cast<float>(0.3 * random.normal(e));
      values[e] = static_cast<double>(host.as<float>()[e]);
    }
    Stream stream = stream_of(kGpu);
    device = to_device(stream, host, kGpu);
  }
  ConstView operator()(Side side) const { return !host.defined() ? ConstView{} : side.on_device ? device.view() : host.view(); }
};

struct Routed {
  Twin scores, experts, weights;

  explicit Routed(std::int64_t tokens, std::int64_t num_experts, std::int64_t top_k)
      : scores(Twin::output({tokens, num_experts}, DType::kF32)),
        experts(Twin::output({tokens, top_k}, DType::kI32)),
        weights(Twin::output({tokens, top_k}, DType::kF32)) {}

  void route(const RouterOptions& options, Twin& logits, const Bias& bias) {
    run_on_both({&logits}, {&scores, &experts, &weights}, [&](Stream& stream, Side side) {
      run(stream, kernels::RouterForward{.options = options,
                                         .logits = side(logits),
                                         .bias = bias(side),
                                         .token = {},
                                         .scores = side(scores),
                                         .experts = side(experts),
                                         .weights = side(weights)});
    });
  }
};

const RouterOptions kV3{.top_k = 8, .num_groups = 8, .topk_groups = 4, .scaling = 2.5};
const RouterOptions kV2{
    .score = Score::kSoftmax, .group_score = GroupScore::kMax, .top_k = 6, .num_groups = 8, .topk_groups = 3, .normalize = false, .scaling = 16};

const Case kCases[] = {
    {1, 8, {.top_k = 1}},
    {7, 8, {.top_k = 8}, true},
    {3, 5, {.score = Score::kSoftmax, .top_k = 3, .normalize = false}},
    {65, 64, {.score = Score::kSoftmax, .group_score = GroupScore::kMax, .top_k = 6, .normalize = false}},
    {4099, 64, {.top_k = 6, .scaling = 2.5}, true},
    {1021, 256, kV3, true},
    {301, 160, kV2},
    {33, 160, {.top_k = 16, .num_groups = 5, .topk_groups = 2}, true},
    {17, 66, {.top_k = 4, .num_groups = 33, .topk_groups = 3}, true},
    {9, 40, {.top_k = 3, .num_groups = 40, .topk_groups = 7}},
    {29, 129, {.top_k = 2, .num_groups = 3, .topk_groups = 1}, true},
    {50, 512, {.score = Score::kSoftmax, .top_k = 32, .num_groups = 16, .topk_groups = 9}},
};

TEST(CudaRouter, ChoosesAsTheCpuDoes) {
  std::uint64_t seed = 0;
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.tokens << " tokens, " << c.num_experts << " experts");
    const Bias bias(c.num_experts, c.bias);
    Twin logits = clear_logits(c, bias.values, ++seed);
    Routed r(c.tokens, c.num_experts, c.options.top_k);
    r.route(c.options, logits, bias);
    EXPECT_TRUE(r.experts.equal());
    EXPECT_TRUE(r.scores.agrees(1e-6));
    EXPECT_TRUE(r.weights.agrees(1e-6));
  }
}

TEST(CudaRouter, TiesGoToTheLowerIndexInGroupsToo) {
  Tensor values = Tensor::empty({500, 64}, DType::kF64);
  const Random random(5, RandomPurpose::kSynthetic);
  for (std::int64_t i = 0; i < values.numel(); ++i) values.as<double>()[i] = static_cast<double>(random.below(static_cast<std::uint64_t>(i), 4));
  Twin logits(std::move(values), DType::kF32);
  for (const RouterOptions& options : {RouterOptions{.top_k = 6}, RouterOptions{.top_k = 8, .num_groups = 8, .topk_groups = 3},
                                       RouterOptions{.group_score = GroupScore::kMax, .top_k = 5, .num_groups = 16, .topk_groups = 4},
                                       RouterOptions{.group_score = GroupScore::kMax, .top_k = 4, .num_groups = 64, .topk_groups = 5}}) {
    Routed r(500, 64, options.top_k);
    r.route(options, logits, Bias(64, false));
    EXPECT_TRUE(r.experts.equal()) << options.num_groups << " groups";
  }
}

TEST(CudaRouter, NotANumberGivesWayAndGoesThroughToTheWeights) {
  for (const auto score : {Score::kSigmoid, Score::kSoftmax}) {
    for (const std::int64_t topk_groups : {2, 4}) {
      const Case c{6, 8, {.score = score, .top_k = 4, .num_groups = 4, .topk_groups = topk_groups}};
      Twin clear = clear_logits(c, std::vector<double>(8), 3);
      Tensor values = Tensor::empty({6, 8}, DType::kF64);
      std::ranges::copy(clear.host().span<double>(), values.as<double>());
      const double nan = std::nan("");
      std::fill(values.as<double>(), values.as<double>() + 8, nan);
      values.as<double>()[8 + 2] = nan;
      for (int e = 1; e < 8; ++e) values.as<double>()[16 + e] = nan;
      for (int e = 0; e < 8; e += 2) values.as<double>()[24 + e] = nan;
      Twin logits(std::move(values), DType::kF32);
      Routed r(6, 8, 4);
      r.route(c.options, logits, Bias(8, false));
      EXPECT_TRUE(r.experts.equal());
      EXPECT_TRUE(r.scores.agrees(1e-6));
      EXPECT_TRUE(r.weights.agrees(1e-6));
      EXPECT_TRUE(std::isnan(r.weights.host().as<double>()[0]));
    }
  }
}

TEST(CudaRouter, ExtremeLogitsGiveScoresOfZeroAndOne) {
  Tensor values = Tensor::empty({2, 4}, DType::kF64);
  const double extremes[] = {-1e4, 1e4, 0, -200, 90, -90, 200, -1e30};
  std::ranges::copy(extremes, values.as<double>());
  Twin logits(std::move(values), DType::kF32);
  for (const auto score : {Score::kSigmoid, Score::kSoftmax}) {
    Routed r(2, 4, 1);
    r.route({.score = score, .top_k = 1}, logits, Bias(4, false));
    EXPECT_TRUE(r.experts.equal());
    EXPECT_TRUE(r.scores.agrees(1e-6));
  }
}

TEST(CudaRouter, ForcedChoicesFollowTheTokenNumber) {
  Twin logits = Twin::normal({301, 64}, DType::kF32, 4);
  std::vector<std::int64_t> numbers(301);
  for (std::size_t t = 0; t < numbers.size(); ++t) numbers[t] = static_cast<std::int64_t>(t * 7 + (std::size_t{1} << 33));
  Twin token = Twin::ints({301}, numbers, DType::kI64);
  for (const bool numbered : {false, true}) {
    Routed r(301, 64, 6);
    run_on_both({&logits, &token}, {&r.scores, &r.experts, &r.weights}, [&](Stream& stream, Side side) {
      run(stream, kernels::RouterForward{.options = {.top_k = 6, .forced = true},
                                         .logits = side(logits),
                                         .bias = {},
                                         .token = numbered ? side(token) : View{},
                                         .scores = side(r.scores),
                                         .experts = side(r.experts),
                                         .weights = side(r.weights)});
    });
    EXPECT_TRUE(r.experts.equal());
    EXPECT_TRUE(r.weights.agrees(1e-6));
  }
}

TEST(CudaRouter, BackwardAgrees) {
  std::uint64_t seed = 100;
  for (const Case& c : kCases) {
    for (const bool balanced : {false, true}) {
      SCOPED_TRACE(testing::Message() << c.tokens << " tokens, " << c.num_experts << " experts");
      const Bias bias(c.num_experts, c.bias);
      Twin logits = clear_logits(c, bias.values, ++seed);
      Routed r(c.tokens, c.num_experts, c.options.top_k);
      r.route(c.options, logits, bias);
      Twin d_weights = Twin::normal({c.tokens, c.options.top_k}, DType::kF32, ++seed);
      Twin d_scores = Twin::normal({c.tokens, c.num_experts}, DType::kF32, ++seed, 0.1);
      Twin d_logits = Twin::output({c.tokens, c.num_experts}, DType::kF32);
      run_on_both({&r.scores, &r.experts, &d_weights, &d_scores}, {&d_logits}, [&](Stream& stream, Side side) {
        run(stream, kernels::RouterBackward{.options = c.options,
                                            .scores = side(r.scores),
                                            .experts = side(r.experts),
                                            .d_weights = side(d_weights),
                                            .d_scores = balanced ? side(d_scores) : View{},
                                            .d_logits = side(d_logits)});
      });
      EXPECT_TRUE(d_logits.agrees(4e-6));
    }
  }
}

TEST(CudaRouter, TakesNoTokens) {
  Twin logits = Twin::normal({0, 8}, DType::kF32, 1);
  Routed r(0, 8, 2);
  r.route({.top_k = 2}, logits, Bias(8, false));
}

}  // namespace
}  // namespace hadal::test
