// Guards: loads and balance losses of sequences whose rows lie on several ranks, as sequence parallelism (rows of B*S) and
// context parallelism (two chunks of each sequence) place them, with padding at the ends: loss, d_x, gradients and counts equal
// one rank. Forced choices go by the token's number in the batch.
#include <gtest/gtest.h>

#include <numeric>

#include "comm/local/local_group.h"
#include "parallel/context_parallel.h"
#include "parallel/expert_dispatch.h"
#include "parallel/sequence_counts.h"
#include "tests/support/gradient_check.h"
#include "tests/support/small_experts.h"

namespace hadal::parallel {
namespace {

constexpr std::int64_t kHidden = 6, kExperts = 8, kBatch = 3, kSeq = 16, kPadding = 3;

struct Split {
  const char* name;
  int cp, tp;
  bool v2 = false;
  bool forced = false;
};

void PrintTo(const Split& split, std::ostream* out) { *out << split.name; }

nn::MoeOptions options_of(const Split& split) {
  nn::MoeOptions o = split.v2 ? test::small_v2_moe(kHidden, kExperts) : test::small_moe(kHidden, kExperts);
  if (split.v2) {
    o.balance = {.expert_alpha = 0.3, .device_alpha = 0.5, .communication_alpha = 0.2, .num_devices = 4};
  } else {
    o.router = {.top_k = 2, .normalize = true, .scaling = 2.5};
    o.balance = {.sequence_alpha = 0.4};
  }
  o.router.forced = split.forced;
  if (split.forced) o.router.top_k = 3;  // a period of eight tokens: chunks and shares of rows begin inside it
  return o;
}

struct Outcome {
  std::vector<std::int64_t> rows;  // of the whole [B*S, d]
  Tensor y, d_x;
  double loss = 0;
  std::vector<std::int64_t> counts;
};

Outcome run_layer(nn::MoeLayer& layer, nn::Context& ctx, ConstView x, ConstView d_y) {
  Outcome outcome;
  nn::SavedPtr saved;
  outcome.y = layer.forward(ctx, x, &saved);
  outcome.d_x = layer.backward_input(ctx, d_y, *saved);
  layer.backward_weight(ctx, *saved);
  outcome.loss = *layer.balance_loss().as<double>();
  const auto counts = layer.counts().span<std::int64_t>();
  outcome.counts.assign(counts.begin(), counts.end());
  return outcome;
}

/// Rows of the whole [B*S, d] that lie on rank `tp_rank` of `tp`, in their order there.
std::vector<std::int64_t> rows_of(std::span<const nn::Segment> segments, int tp_rank, int tp) {
  std::vector<std::int64_t> rows;
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (const nn::Segment& segment : segments) {
      for (std::int64_t s = 0; s < segment.length; ++s) rows.push_back(b * kSeq + segment.position + s);
    }
  }
  const std::int64_t share = std::ssize(rows) / tp;
  return {rows.begin() + tp_rank * share, rows.begin() + (tp_rank + 1) * share};
}

Tensor take_rows(const Tensor& from, const std::vector<std::int64_t>& rows) {
  Tensor to = Tensor::empty({std::ssize(rows), kHidden}, DType::kF64);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(from.as<double>() + rows[i] * kHidden, kHidden, to.as<double>() + static_cast<std::int64_t>(i) * kHidden);
  }
  return to;
}

class SharedSequences : public testing::TestWithParam<Split> {};

TEST_P(SharedSequences, EqualWholeOnes) {
  const Split& split = GetParam();
  const Tensor x = test::normal_tensor({kBatch * kSeq, kHidden}, 1), d_y = test::normal_tensor({kBatch * kSeq, kHidden}, 2);
  nn::MoeLayer whole("mlp", options_of(split));
  nn::ParameterList parameters;
  whole.collect(parameters);
  for (nn::Parameter* parameter : parameters) parameter->initialize(11);
  Stream stream;
  nn::Context whole_ctx{.stream = stream, .batch = kBatch, .seq = kSeq, .num_padding = kPadding, .sequence_scale = 0.5};
  const Outcome expected = run_layer(whole, whole_ctx, x, d_y);
  test::LogicalTensors expected_gradients;
  test::add_gradients(expected_gradients, parameters);

  const int num_ranks = split.cp * split.tp;
  std::vector<Outcome> outcomes(static_cast<std::size_t>(num_ranks));
  test::LogicalTensors gradients;
  comm::run_local_group(num_ranks, [&](comm::Communicator& world) {
    const int tp_rank = world.rank() % split.tp;
    nn::MoeLayer layer("mlp", options_of(split),
                       {.experts = {world.rank(), num_ranks},
                        .width = {},
                        .exchange = std::make_shared<ExpertDispatch>(world, ExpertDispatchOptions{.num_experts = kExperts}),
                        .training_exchange = nullptr,
                        .sequence_counts = std::make_shared<GroupSequenceCounts>(world)},
                       nullptr);
    nn::ParameterList own;
    layer.collect(own);
    for (nn::Parameter* parameter : own) parameter->initialize(11);
    std::vector<int> cp_group(static_cast<std::size_t>(split.cp));
    for (int r = 0; r < split.cp; ++r) cp_group[static_cast<std::size_t>(r)] = r * split.tp + tp_rank;
    const auto cp = world.subgroup(cp_group, "cp");
    const ContextParallel sequence(*cp, kSeq);
    const std::vector<std::int64_t> rows = rows_of(sequence.segments(), tp_rank, split.tp);
    Stream mine;
    nn::Context ctx{.stream = mine,
                    .batch = kBatch,
                    .seq = kSeq / split.cp,
                    .num_padding = kPadding,
                    .sequence_scale = 0.5,
                    .sequence = split.cp == 1 ? nullptr : &sequence,
                    .token_begin = tp_rank * std::ssize(rows)};
    const Tensor own_x = take_rows(x, rows), own_d_y = take_rows(d_y, rows);
    Outcome& outcome = outcomes[static_cast<std::size_t>(world.rank())];
    outcome = run_layer(layer, ctx, own_x, own_d_y);
    outcome.rows = rows;
    test::add_gradients_of_ranks(gradients, own, world);
  });

  double loss = 0;
  std::vector<std::int64_t> counts(kExperts);
  Tensor y = Tensor::zeros(x.shape(), DType::kF64), d_x = Tensor::zeros(x.shape(), DType::kF64);
  for (int r = 0; r < num_ranks; ++r) {
    const Outcome& outcome = outcomes[static_cast<std::size_t>(r)];
    loss += outcome.loss;
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] += outcome.counts[e];
    const std::vector<std::int64_t>& rows = outcome.rows;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(outcome.y.as<double>() + static_cast<std::int64_t>(i) * kHidden, kHidden, y.as<double>() + rows[i] * kHidden);
      std::copy_n(outcome.d_x.as<double>() + static_cast<std::int64_t>(i) * kHidden, kHidden, d_x.as<double>() + rows[i] * kHidden);
    }
  }
  EXPECT_GT(expected.loss, 0);
  EXPECT_NEAR(loss, expected.loss, 1e-13 * expected.loss);
  EXPECT_EQ(counts, expected.counts);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}),
            kBatch * (kSeq - kPadding) * options_of(split).router.top_k);
  EXPECT_LE(test::relative_difference(y, expected.y), 1e-10);
  EXPECT_LE(test::relative_difference(d_x, expected.d_x), 1e-10);
  EXPECT_TRUE(test::same_tensors(gradients, expected_gradients));
}

INSTANTIATE_TEST_SUITE_P(Splits, SharedSequences,
                         testing::Values(Split{"tp2", 1, 2}, Split{"tp4", 1, 4}, Split{"cp2", 2, 1}, Split{"cp4", 4, 1},
                                         Split{"cp2_tp2", 2, 2}, Split{"cp2_tp4", 2, 4}, Split{"tp2_v2", 1, 2, true},
                                         Split{"tp4_v2", 1, 4, true}, Split{"cp2_v2", 2, 1, true},
                                         Split{"cp2_tp2_v2", 2, 2, true}, Split{"tp4_forced", 1, 4, false, true},
                                         Split{"cp2_tp2_forced", 2, 2, false, true}),
                         [](const auto& split) { return std::string(split.param.name); });

}  // namespace
}  // namespace hadal::parallel
