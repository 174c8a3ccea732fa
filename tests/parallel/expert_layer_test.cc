// Guards: a MoE layer whose experts and their widths lie on several ranks equals one rank on the tokens of all: y, d_x, every
// gradient, the balancer's counts; with uneven tokens, experts that nobody chooses, all tokens on one expert, several
// micro-batches in flight.
#include <gtest/gtest.h>

#include <algorithm>

#include "comm/local/local_group.h"
#include "parallel/room_dispatch.h"
#include "tests/support/gradient_check.h"
#include "tests/support/small_experts.h"

namespace hadal::parallel {
namespace {

constexpr std::int64_t kHidden = 6, kExperts = 16;

enum class Router { kV3, kV2 };
/// Which experts the balancing bias leaves.
enum class Load { kNatural, kHalfUnused, kOneExpert };

struct Layout {
  const char* name;
  int ranks, ep, etp, per_node;
  std::vector<std::int64_t> tokens;  // per rank in the first micro-batch; the second one has them in reverse
  Router router = Router::kV3;
  Load load = Load::kNatural;
  double capacity = 0;  // of room; 0: exact counts
};

void PrintTo(const Layout& layout, std::ostream* out) { *out << layout.name; }

nn::MoeOptions options_of(const Layout& layout) {
  const bool v2 = layout.router == Router::kV2;
  nn::MoeOptions o = v2 ? test::small_v2_moe(kHidden, kExperts) : test::small_moe(kHidden, kExperts);
  o.num_shared = 1;
  if (layout.load == Load::kOneExpert) {
    o.router = {.top_k = 1, .normalize = false};  // one weight divided by itself has no gradient
  } else if (!v2) {
    o.router = {.top_k = 4, .num_groups = 4, .topk_groups = 3, .normalize = true, .scaling = 2.5};
  }
  return o;
}

void set_parameters(const nn::ParameterList& parameters, Load load) {
  for (nn::Parameter* parameter : parameters) {
    parameter->initialize(11);
    if (parameter->options().trainable) continue;
    for (std::int64_t e = 0; e < kExperts; ++e) {
      float bias = 0.1f * static_cast<float>(e % 3);
      if (load == Load::kHalfUnused && e % 4 < 2) bias = -10;
      if (load == Load::kOneExpert && e != 5) bias = -10;
      parameter->value().as<float>()[e] = bias;
    }
  }
}

/// One rank's tokens of the two micro-batches, and what comes of them.
struct RankRun {
  Tensor x[2], d_y[2], y[2], d_x[2];
  std::vector<std::int64_t> counts;
};

void run_layer(nn::MoeLayer& layer, RankRun& run) {
  Stream stream;
  nn::SavedPtr saved[2];
  const auto context = [&](int m) { return nn::Context{.stream = stream, .batch = 1, .seq = run.x[m].shape()[0]}; };
  for (int m = 0; m < 2; ++m) {
    nn::Context ctx = context(m);
    run.y[m] = layer.forward(ctx, run.x[m], &saved[m]);
  }
  for (int m = 0; m < 2; ++m) {
    nn::Context ctx = context(m);
    run.d_x[m] = layer.backward_input(ctx, run.d_y[m], *saved[m]);
  }
  for (int m = 0; m < 2; ++m) {
    nn::Context ctx = context(m);
    layer.backward_weight(ctx, *saved[m]);
  }
  const auto counts = layer.counts().span<std::int64_t>();
  run.counts.assign(counts.begin(), counts.end());
}

struct Result {
  std::vector<RankRun> ranks;
  test::LogicalTensors gradients;
};

Result run_ranks(const Layout& layout, const Tensor (&x)[2], const Tensor (&d_y)[2]) {
  Result result;
  result.ranks.resize(static_cast<std::size_t>(layout.ranks));
  comm::run_local_group(layout.ranks, [&](comm::Communicator& world) {
    const auto rank = static_cast<std::size_t>(world.rank());
    RankRun& mine = result.ranks[rank];
    for (int m = 0; m < 2; ++m) {
      std::vector<std::int64_t> tokens = layout.tokens;
      if (m == 1) std::ranges::reverse(tokens);
      std::int64_t begin = 0;
      for (std::size_t r = 0; r < rank; ++r) begin += tokens[r];
      mine.x[m] = Tensor::empty({tokens[rank], kHidden}, DType::kF64);
      mine.d_y[m] = Tensor::empty({tokens[rank], kHidden}, DType::kF64);
      std::copy_n(x[m].as<double>() + begin * kHidden, mine.x[m].numel(), mine.x[m].as<double>());
      std::copy_n(d_y[m].as<double>() + begin * kHidden, mine.d_y[m].numel(), mine.d_y[m].as<double>());
    }
    const int size = layout.ep * layout.etp, first = world.rank() / size * size;
    std::vector<int> members(static_cast<std::size_t>(size));
    for (int i = 0; i < size; ++i) members[static_cast<std::size_t>(i)] = first + i;
    const auto group = world.subgroup(members, "experts");
    const nn::MoeOptions options = options_of(layout);
    const ExpertDispatchOptions ways{.num_experts = kExperts, .etp = layout.etp, .ranks_per_node = layout.per_node};
    nn::MoeLayout place{.experts = {group->rank() / layout.etp, layout.ep},
                        .width = {group->rank() % layout.etp, layout.etp},
                        .exchange = std::make_shared<ExpertDispatch>(*group, ways),
                        .training_exchange = nullptr,
                        .sequence_counts = nullptr};
    if (layout.capacity > 0) place.training_exchange = std::make_shared<RoomDispatch>(*group, ways, layout.capacity, kCpu);
    nn::MoeLayer layer(
        "mlp", options, std::move(place),
        std::make_unique<nn::FeedForward>("mlp.shared_experts", kHidden, options.width, options.init_std, options.dtype));
    nn::ParameterList parameters;
    layer.collect(parameters);
    set_parameters(parameters, layout.load);
    run_layer(layer, mine);
    test::add_gradients_of_ranks(result.gradients, parameters, world);
  });
  return result;
}

/// The rows of all ranks, one rank behind the other.
template <class Rows>
Tensor rows_of(const std::vector<RankRun>& ranks, Rows&& rows) {
  std::vector<double> values;
  for (const RankRun& run : ranks) {
    const ConstView part = rows(run);
    values.insert(values.end(), part.span<double>().begin(), part.span<double>().end());
  }
  Tensor all = Tensor::empty({std::ssize(values) / kHidden, kHidden}, DType::kF64);
  std::ranges::copy(values, all.as<double>());
  return all;
}

class ExpertLayouts : public testing::TestWithParam<Layout> {};

TEST_P(ExpertLayouts, EqualOneRank) {
  const Layout& layout = GetParam();
  std::int64_t tokens = 0;
  for (const std::int64_t count : layout.tokens) tokens += count;
  const Tensor x[] = {test::normal_tensor({tokens, kHidden}, 1), test::normal_tensor({tokens, kHidden}, 2)};
  const Tensor d_y[] = {test::normal_tensor({tokens, kHidden}, 3), test::normal_tensor({tokens, kHidden}, 4)};

  nn::MoeLayer whole("mlp", options_of(layout));
  nn::ParameterList parameters;
  whole.collect(parameters);
  set_parameters(parameters, layout.load);
  RankRun expected;
  for (int m = 0; m < 2; ++m) {
    expected.x[m] = x[m].clone();
    expected.d_y[m] = d_y[m].clone();
  }
  run_layer(whole, expected);
  test::LogicalTensors gradients;
  test::add_gradients(gradients, parameters);

  const Result result = run_ranks(layout, x, d_y);
  for (int m = 0; m < 2; ++m) {
    EXPECT_LE(test::relative_difference(rows_of(result.ranks, [m](const RankRun& run) { return run.y[m].view(); }), expected.y[m]), 1e-10);
    EXPECT_LE(test::relative_difference(rows_of(result.ranks, [m](const RankRun& run) { return run.d_x[m].view(); }), expected.d_x[m]), 1e-10);
  }
  EXPECT_TRUE(test::same_tensors(result.gradients, gradients));
  std::vector<std::int64_t> counts(kExperts);
  for (const RankRun& run : result.ranks) {
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] += run.counts[e];
  }
  EXPECT_EQ(counts, expected.counts);
  const auto unused = std::ranges::count(counts, 0);
  if (layout.load == Load::kHalfUnused) {
    EXPECT_GE(unused, kExperts / 2);
  }
  if (layout.load == Load::kOneExpert) {
    EXPECT_EQ(unused, kExperts - 1);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, ExpertLayouts,
    testing::Values(Layout{"ep2", 2, 2, 1, 0, {7, 4}}, Layout{"ep4", 4, 4, 1, 0, {5, 1, 9, 3}},
                    Layout{"ep4_v2", 4, 4, 1, 0, {5, 1, 9, 3}, Router::kV2}, Layout{"ep4_no_tokens", 4, 4, 1, 0, {6, 0, 3, 0}},
                    Layout{"ep8", 8, 8, 1, 0, {2, 5, 1, 1, 7, 3, 4, 2}},
                    Layout{"ep8_half_unused", 8, 8, 1, 0, {2, 5, 1, 1, 7, 3, 4, 2}, Router::kV3, Load::kHalfUnused},
                    Layout{"ep8_one_expert", 8, 8, 1, 0, {2, 5, 1, 1, 7, 3, 4, 2}, Router::kV3, Load::kOneExpert},
                    Layout{"etp2", 2, 1, 2, 0, {7, 4}}, Layout{"ep2_etp2", 4, 2, 2, 0, {5, 1, 9, 3}},
                    Layout{"ep2_etp2_one_expert", 4, 2, 2, 0, {5, 1, 9, 3}, Router::kV3, Load::kOneExpert},
                    Layout{"ep4_edp2", 8, 4, 1, 0, {2, 5, 1, 1, 7, 3, 4, 2}},
                    Layout{"ep2_etp2_edp2_v2", 8, 2, 2, 0, {2, 5, 1, 1, 7, 3, 4, 2}, Router::kV2},
                    Layout{"ep4_nodes_2x2", 4, 4, 1, 2, {5, 1, 9, 3}},
                    Layout{"ep8_nodes_2x4", 8, 8, 1, 4, {2, 5, 1, 1, 7, 3, 4, 2}},
                    Layout{"ep8_nodes_2x4_v2", 8, 8, 1, 4, {2, 5, 0, 1, 7, 3, 4, 2}, Router::kV2},
                    Layout{"ep8_nodes_2x4_half_unused", 8, 8, 1, 4, {2, 5, 1, 1, 7, 3, 4, 2}, Router::kV3, Load::kHalfUnused},
                    Layout{"ep8_nodes_4x2_one_expert", 8, 8, 1, 2, {2, 5, 1, 1, 7, 3, 4, 2}, Router::kV3, Load::kOneExpert},
                    Layout{"ep4_etp2_nodes_2x4", 8, 4, 2, 4, {2, 5, 1, 1, 7, 3, 4, 2}},
                    Layout{"ep2_etp4_nodes_4x2", 8, 2, 4, 2, {2, 5, 1, 1, 7, 3, 4, 2}},
                    Layout{"room_ep4", 4, 4, 1, 0, {7, 7, 7, 7}, Router::kV3, Load::kNatural, 16},
                    Layout{"room_ep8_one_expert", 8, 8, 1, 0, {3, 3, 3, 3, 3, 3, 3, 3}, Router::kV3, Load::kOneExpert, 16},
                    Layout{"room_ep2_etp2_half_unused", 4, 2, 2, 0, {6, 6, 6, 6}, Router::kV3, Load::kHalfUnused, 16},
                    Layout{"room_ep8_nodes_2x4_v2", 8, 8, 1, 4, {4, 4, 4, 4, 4, 4, 4, 4}, Router::kV2, Load::kNatural, 16},
                    Layout{"room_ep4_etp2_nodes_2x4", 8, 4, 2, 4, {3, 3, 3, 3, 3, 3, 3, 3}, Router::kV3, Load::kNatural, 16}),
    [](const auto& layout) { return std::string(layout.param.name); });

TEST(ExpertNodes, GiveTheExpertsTheSameBitsAsOneHop) {
  // What reaches an expert, and in which order, does not depend on the way.
  const Layout one{"one", 8, 8, 1, 0, {2, 5, 1, 1, 7, 3, 4, 2}}, two{"two", 8, 8, 1, 4, one.tokens};
  const Tensor x[] = {test::normal_tensor({25, kHidden}, 1), test::normal_tensor({25, kHidden}, 2)};
  const Tensor d_y[] = {test::normal_tensor({25, kHidden}, 3), test::normal_tensor({25, kHidden}, 4)};
  const Result a = run_ranks(one, x, d_y), b = run_ranks(two, x, d_y);
  int compared = 0;
  for (const auto& [name, values] : a.gradients) {
    if (name.find(".experts.") == std::string::npos) continue;
    EXPECT_TRUE(std::ranges::equal(values.span<double>(), b.gradients.at(name).span<double>())) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 3 * kExperts);
}

}  // namespace
}  // namespace hadal::parallel
