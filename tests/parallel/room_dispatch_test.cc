// Guards: a dispatch into bounded room does what the exact one does, bit by bit: rows and their order at the experts (over one hop), weights,
// sums, weights' gradients; whatever lies in rows that nobody uses. Without enough room, exactly the rows that found none are counted, and
// room that grows ends at none.
#include "parallel/room_dispatch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "comm/local/local_group.h"
#include "tests/support/expert_choices.h"
#include "tests/support/gradient_check.h"

namespace hadal::parallel {
namespace {

constexpr std::int64_t kHidden = 3, kTokens = 40;

struct Way {
  const char* name;
  int ranks, etp, per_node;
  std::int64_t experts = 16, top_k = 5;
};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

ExpertDispatchOptions options_of(const Way& way) { return {.num_experts = way.experts, .etp = way.etp, .ranks_per_node = way.per_node}; }

/// What one rank sees of one way out and back.
struct Seen {
  std::vector<std::int64_t> offsets;
  std::vector<double> rows, weights;  ///< at the experts
  std::vector<double> y, scalars;
  bool operator==(const Seen&) const = default;
};

std::vector<double> first(const Tensor& tensor, std::int64_t count) { return {tensor.as<double>(), tensor.as<double>() + count}; }

/// The experts multiply by what depends on expert, share and weight. Rows past the last expert's become NaN.
Seen there_and_back(nn::ExpertExchange& exchange, comm::Communicator& world, const Way& way) {
  Stream stream;
  const test::ExpertChoices chosen = test::make_choices(
      {.rows = kTokens, .slots = way.top_k, .num_experts = way.experts, .skew = true});
  const auto seed = static_cast<std::uint64_t>(world.rank());
  // Other weights on each rank; choices are turned by it.
  Tensor experts = chosen.experts.clone();
  for (std::int32_t& e : experts.span<std::int32_t>()) e = static_cast<std::int32_t>((e + 3 * world.rank()) % way.experts);
  const Tensor weights = test::normal_tensor({kTokens, way.top_k}, 50 + seed), x = test::normal_tensor({kTokens, kHidden}, 10 + seed),
               base = test::normal_tensor({kTokens, kHidden}, 30 + seed);
  const auto route = exchange.route(stream, experts, weights);
  Seen seen;
  // Twice along one route, as forward and backward go.
  for (int pass = 0; pass < 2; ++pass) {
    route->start_dispatch(stream, x);
    Tensor rows = route->finish_dispatch(stream);
    const auto offsets = route->offsets().span<std::int64_t>();
    const std::int64_t used = offsets.back(), all = rows.shape()[0];
    seen.offsets.assign(offsets.begin(), offsets.end());
    seen.rows = first(rows, used * kHidden);
    seen.weights.assign(route->row_weight().as<double>(), route->row_weight().as<double>() + used);
    Tensor scalars = Tensor::empty({all}, DType::kF64);
    const std::int64_t share = world.rank() % way.etp;
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
      for (std::int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        scalars.as<double>()[r] = static_cast<double>(1 + share) * rows.as<double>()[r * kHidden];
        const double factor = (static_cast<double>(e) + 1.25) * (1 + 0.5 * static_cast<double>(share)) * seen.weights[static_cast<std::size_t>(r)];
        for (std::int64_t i = 0; i < kHidden; ++i) rows.as<double>()[r * kHidden + i] *= factor;
      }
    }
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::fill(rows.as<double>() + used * kHidden, rows.as<double>() + all * kHidden, nan);
    std::fill(scalars.as<double>() + used, scalars.as<double>() + all, nan);
    route->start_combine(stream, std::move(rows), std::move(scalars));
    Tensor y = base.clone(), returned = Tensor::empty({kTokens, way.top_k}, DType::kF64);
    route->finish_combine(stream, y, y, returned);
    seen.y = first(y, y.numel());
    seen.scalars = first(returned, returned.numel());
  }
  return seen;
}

class RoomWays : public testing::TestWithParam<Way> {};

TEST_P(RoomWays, DoWhatExactCountsDo) {
  const Way& way = GetParam();
  comm::run_local_group(way.ranks, [&](comm::Communicator& world) {
    ExpertDispatch exact(world, options_of(way));
    RoomDispatch room(world, options_of(way), 8, kCpu);
    Tensor overflow = Tensor::zeros({1}, DType::kI64);
    room.bind_overflow(overflow);
    const Seen expected = there_and_back(exact, world, way);
    Seen seen = there_and_back(room, world, way);
    EXPECT_EQ(*overflow.as<std::int64_t>(), 0);
    EXPECT_EQ(seen.offsets, expected.offsets);
    EXPECT_EQ(seen.y, expected.y);
    if (way.etp > way.per_node && way.per_node > 0) {  // summed in each node first
      ASSERT_EQ(seen.scalars.size(), expected.scalars.size());
      for (std::size_t i = 0; i < seen.scalars.size(); ++i) EXPECT_NEAR(seen.scalars[i], expected.scalars[i], 1e-13);
    } else {
      EXPECT_EQ(seen.scalars, expected.scalars);
    }
    EXPECT_GT(seen.rows.size(), 0u);
    if (way.per_node > 0) {  // the same rows in another order
      for (std::vector<double>* values : {&seen.rows, &seen.weights}) std::ranges::sort(*values);
      std::vector<double> rows = expected.rows, weights = expected.weights;
      std::ranges::sort(rows);
      std::ranges::sort(weights);
      EXPECT_EQ(seen.rows, rows);
      EXPECT_EQ(seen.weights, weights);
    } else {
      EXPECT_EQ(seen.rows, expected.rows);
      EXPECT_EQ(seen.weights, expected.weights);
    }
  });
}

TEST_P(RoomWays, CountWhatFindsNoRoomUntilThereIsEnough) {
  const Way& way = GetParam();
  std::vector<std::int64_t> counted;  // more rows that arrive may leave more without a row at their experts
  comm::run_local_group(way.ranks, [&](comm::Communicator& world) {
    ExpertDispatch exact(world, options_of(way));
    RoomDispatch room(world, options_of(way), 1, kCpu);
    Tensor overflow = Tensor::zeros({1}, DType::kI64);
    room.bind_overflow(overflow);
    const Seen expected = there_and_back(exact, world, way);
    for (;;) {
      overflow.fill_zero();
      const Seen seen = there_and_back(room, world, way);
      const std::int64_t all = world.all_reduce_sum(*overflow.as<std::int64_t>());
      if (world.is_root()) counted.push_back(all);
      EXPECT_EQ(world.all_reduce_sum(std::int64_t{seen.y != expected.y}) > 0, all > 0);
      if (all == 0 || room.capacity() > 64) break;
      room.set_capacity(2 * room.capacity());
    }
  });
  EXPECT_EQ(counted.back(), 0);
  EXPECT_GE(counted.size(), way.ranks > way.etp ? 2u : 1u);  // rows go to all of a single width anyway
}

INSTANTIATE_TEST_SUITE_P(Ways, RoomWays,
                         testing::Values(Way{"one_hop_1", 1, 1, 0}, Way{"one_hop_2", 2, 1, 0}, Way{"one_hop_4", 4, 1, 0},
                                         Way{"one_hop_8_top_1", 8, 1, 0, 8, 1}, Way{"one_hop_2x2", 4, 2, 0}, Way{"etp_4", 4, 4, 0},
                                         Way{"nodes_2x2", 4, 1, 2}, Way{"nodes_2x4", 8, 1, 4}, Way{"nodes_2x4_etp2", 8, 2, 4},
                                         Way{"nodes_4x2_etp4", 8, 4, 2}, Way{"nodes_1x4", 4, 1, 4}, Way{"nodes_4x1", 4, 1, 1}),
                         [](const auto& way) { return std::string(way.param.name); });

/// Every token of four ranks to both experts of rank 0. Of 64 tokens, 64 (1 - 6/8 5/7) = 29.7 go to a rank where the load is even: room for
/// 32. Rank 0 gets 4 x 32 rows, 256 slots, where an even load would be 64 x 2 = 128.
TEST(RoomDispatch, CountsEveryRowWithoutRoomOnce) {
  comm::run_local_group(4, [&](comm::Communicator& world) {
    Stream stream;
    RoomDispatch room(world, {.num_experts = 8}, 1, kCpu);
    Tensor overflow = Tensor::zeros({1}, DType::kI64), experts = Tensor::empty({64, 2}, DType::kI32);
    room.bind_overflow(overflow);
    for (int i = 0; i < 128; ++i) experts.as<std::int32_t>()[i] = 1 - i % 2;
    const Tensor x = test::normal_tensor({64, kHidden}, 1);
    const auto counted = [&] {
      overflow.fill_zero();
      const auto route = room.route(stream, experts, test::normal_tensor({64, 2}, 2));
      route->start_dispatch(stream, x);
      const Tensor rows = route->finish_dispatch(stream);
      EXPECT_LE(route->offsets().span<std::int64_t>().back(), rows.shape()[0]);
      return world.all_reduce_sum(*overflow.as<std::int64_t>());
    };
    EXPECT_EQ(counted(), 4 * 32 + 128);
    room.set_capacity(2);  // 64 rows, all of them; 512 slots come to 256 rows
    EXPECT_EQ(counted(), 256);
    room.set_capacity(4);
    EXPECT_EQ(counted(), 0);
  });
}

TEST(RoomDispatch, RefusesGroupsThatDoNotDivide) {
  const auto open = [](const ExpertDispatchOptions& options, double capacity) {
    comm::run_local_group(6, [&](comm::Communicator& world) { RoomDispatch(world, options, capacity, kCpu); });
  };
  EXPECT_THROW(open({.num_experts = 8}, 1), ContractError);
  EXPECT_THROW(open({.num_experts = 12, .etp = 3, .ranks_per_node = 2}, 1), ContractError);
  EXPECT_THROW(open({.num_experts = 12}, 0.5), ContractError);
}

}  // namespace
}  // namespace hadal::parallel
