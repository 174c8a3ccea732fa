// Guards: the way of rows to the experts and back, bit by bit against sums written out in the promised order (in a member experts
// ascending, then its node, then the source: spec/parallelism.md 3.4); that a row is sent once to a rank, and over the rail once
// to a node, however many of its experts are there; the order in which rows reach an expert; contracts of the group's size.
#include "parallel/expert_dispatch.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "comm/local/local_group.h"
#include "core/rng.h"
#include "tests/support/gradient_check.h"

namespace hadal::parallel {
namespace {

constexpr std::int64_t kHidden = 3, kExperts = 16, kTopK = 5;

struct Way {
  const char* name;
  int ranks, etp, per_node;
};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

/// What is routed on each rank: x, base and d_y [T, d], experts, weights [T, K].
struct Tokens {
  Tensor x, base, experts, weights;
};

/// Distinct random experts; ranks have 3, 4, ... tokens, rank 2 none.
Tokens make_tokens(int rank) {
  const std::int64_t count = rank == 2 ? 0 : rank + 3;
  const auto seed = static_cast<std::uint64_t>(rank);
  Tokens t{test::normal_tensor({count, kHidden}, 10 + seed), test::normal_tensor({count, kHidden}, 30 + seed),
           Tensor::empty({count, kTopK}, DType::kI32), test::normal_tensor({count, kTopK}, 50 + seed)};
  const Random random(7, RandomPurpose::kSynthetic, seed);
  std::uint64_t draw = 0;
  for (std::int64_t token = 0; token < count; ++token) {
    std::set<std::int32_t> seen;
    for (std::int64_t k = 0; k < kTopK; ++k) {
      std::int32_t e = 0;
      do e = static_cast<std::int32_t>(random.uniform(draw++) * kExperts);
      while (!seen.insert(e).second);
      t.experts.as<std::int32_t>()[token * kTopK + k] = e;
    }
  }
  return t;
}

/// The "expert": what element i of a row becomes on a member.
double expert_value(std::int64_t expert, int etp_rank, double weight, double x) {
  return (static_cast<double>(expert) + 1.25) * (1.0 + 0.5 * etp_rank) * weight * x;
}

/// Results in the promised order, and how many rows travel on each hop.
class Oracle {
 public:
  explicit Oracle(const Way& way) : way_(way), per_member_(kExperts * way.etp / way.ranks), rows_(way.per_node == 0 ? 1 : 2, 0) {}

  /// y of one token, and of each of its slots the scalar that comes back: the sum over the etp members of (1 + etp_rank) x_0.
  void add_token(int rank, const Tokens& tokens, std::int64_t token) {
    const int per_node = way_.per_node == 0 ? way_.ranks : way_.per_node;
    std::set<std::pair<int, std::pair<std::int64_t, std::int64_t>>> places;  // (member, (expert, slot))
    for (std::int64_t k = 0; k < kTopK; ++k) {
      const std::int64_t expert = tokens.experts.as<std::int32_t>()[token * kTopK + k];
      for (int share = 0; share < way_.etp; ++share) {
        places.insert({static_cast<int>(expert / per_member_) * way_.etp + share, {expert, k}});
      }
    }
    for (std::int64_t i = 0; i < kHidden; ++i) {
      // Level by level: member, node, source.
      std::map<int, std::map<int, double>> sums;  // node -> member -> sum
      for (const auto& [member, pair] : places) {
        const double value = expert_value(pair.first, member % way_.etp, tokens.weights.as<double>()[token * kTopK + pair.second],
                                          tokens.x.as<double>()[token * kHidden + i]);
        auto [at, first] = sums[member / per_node].try_emplace(member, value);
        if (!first) at->second += value;
      }
      double y = tokens.base.as<double>()[token * kHidden + i];
      for (const auto& [node, of_member] : sums) {
        if (way_.per_node == 0) {
          for (const auto& [member, value] : of_member) y += value;
        } else {
          double node_sum = of_member.begin()->second;
          for (auto at = std::next(of_member.begin()); at != of_member.end(); ++at) node_sum += at->second;
          y += node_sum;
        }
      }
      y_.push_back(y);
    }
    for (std::int64_t k = 0; k < kTopK; ++k) {
      double scalar = 0;
      for (int share = 0; share < way_.etp; ++share) scalar += (1.0 + share) * tokens.x.as<double>()[token * kHidden];
      scalars_.push_back(scalar);
    }
    count_rows(rank, places, per_node);
  }

  const std::vector<double>& y() const { return y_; }
  const std::vector<double>& scalars() const { return scalars_; }
  const std::vector<std::int64_t>& rows() const { return rows_; }
  std::int64_t items_away() const { return items_away_; }

 private:
  template <class Places>
  void count_rows(int rank, const Places& places, int per_node) {
    std::set<int> members, nodes;
    for (const auto& [member, pair] : places) {
      members.insert(member);
      nodes.insert(member / per_node);
      if (member != rank) ++items_away_;
    }
    if (way_.per_node == 0) {
      rows_[0] += std::ssize(members) - static_cast<int>(members.contains(rank));
      return;
    }
    rows_[0] += std::ssize(nodes) - static_cast<int>(nodes.contains(rank / per_node));
    for (const int member : members) rows_[1] += member % per_node != rank % per_node ? 1 : 0;
  }

  const Way& way_;
  std::int64_t per_member_;
  std::vector<double> y_, scalars_;
  std::vector<std::int64_t> rows_;
  std::int64_t items_away_ = 0;
};

class ExpertWays : public testing::TestWithParam<Way> {};

TEST_P(ExpertWays, SumInThePromisedOrder) {
  const Way& way = GetParam();
  Oracle oracle(way);
  std::vector<Tokens> tokens;
  for (int r = 0; r < way.ranks; ++r) {
    tokens.push_back(make_tokens(r));
    for (std::int64_t t = 0; t < tokens.back().x.shape()[0]; ++t) oracle.add_token(r, tokens.back(), t);
  }

  const auto num_ranks = static_cast<std::size_t>(way.ranks);
  std::vector<Tensor> y(num_ranks), scalars(num_ranks);
  std::vector<std::int64_t> rows_sent(oracle.rows().size(), 0);
  comm::run_local_group(way.ranks, [&](comm::Communicator& world) {
    Stream stream;
    const int me = world.rank();
    const Tokens& mine = tokens[static_cast<std::size_t>(me)];
    ExpertDispatch dispatch(world, {.num_experts = kExperts, .etp = way.etp, .ranks_per_node = way.per_node});
    const std::int64_t per_member = kExperts * way.etp / way.ranks, first = me / way.etp * per_member;
    const auto route = dispatch.route(stream, mine.experts, mine.weights);
    // Twice along one route, as forward and backward go.
    for (int pass = 0; pass < 2; ++pass) {
      route->start_dispatch(stream, mine.x);
      Tensor rows = route->finish_dispatch(stream);
      Tensor row_scalars = Tensor::empty({rows.shape()[0]}, DType::kF64);
      const auto offsets = route->offsets().span<std::int64_t>();
      ASSERT_EQ(std::ssize(offsets), per_member + 1);
      ASSERT_EQ(offsets.back(), rows.shape()[0]);
      for (std::int64_t e = 0; e < per_member; ++e) {
        for (std::int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
          double* row = rows.as<double>() + r * kHidden;
          row_scalars.as<double>()[r] = (1.0 + me % way.etp) * row[0];
          for (std::int64_t i = 0; i < kHidden; ++i) {
            row[i] = expert_value(first + e, me % way.etp, route->row_weight().as<double>()[r], row[i]);
          }
        }
      }
      route->start_combine(stream, std::move(rows), std::move(row_scalars));
      Tensor sums = mine.base.clone(), returned = Tensor::empty(mine.experts.shape(), DType::kF64);
      route->finish_combine(stream, sums, sums, returned);
      y[static_cast<std::size_t>(me)] = std::move(sums);
      scalars[static_cast<std::size_t>(me)] = std::move(returned);
    }
    for (std::size_t h = 0; h < rows_sent.size(); ++h) {
      const std::int64_t of_all = world.all_reduce_sum(dispatch.rows_sent()[h]);
      if (world.is_root()) rows_sent[h] = of_all;
    }
  });

  const auto joined = [](const std::vector<Tensor>& parts) {
    std::vector<double> all;
    for (const Tensor& part : parts) all.insert(all.end(), part.span<double>().begin(), part.span<double>().end());
    return all;
  };
  EXPECT_EQ(joined(y), oracle.y());
  EXPECT_EQ(joined(scalars), oracle.scalars());
  EXPECT_EQ(rows_sent, oracle.rows());
  // There are copies to be saved.
  if (way.ranks > 1) {
    EXPECT_LT(rows_sent[0], oracle.items_away());
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, ExpertWays,
                         testing::Values(Way{"one_hop_1", 1, 1, 0}, Way{"one_hop_2", 2, 1, 0}, Way{"one_hop_4", 4, 1, 0},
                                         Way{"one_hop_8", 8, 1, 0}, Way{"one_hop_2x2", 4, 2, 0}, Way{"nodes_2x2", 4, 1, 2},
                                         Way{"nodes_2x4", 8, 1, 4}, Way{"nodes_4x2", 8, 1, 2}, Way{"nodes_2x4_etp2", 8, 2, 4},
                                         Way{"nodes_1x4", 4, 1, 4}, Way{"nodes_4x1", 4, 1, 1}),
                         [](const auto& way) { return std::string(way.param.name); });

TEST(ExpertDispatch, RowsOfAnExpertAreInOrderOfTheirOrigin) {
  for (const int per_node : {0, 2}) {
    comm::run_local_group(4, [&](comm::Communicator& world) {
      Stream stream;
      ExpertDispatch dispatch(world, {.num_experts = 4, .ranks_per_node = per_node});
      // Two tokens a rank, each to every expert; x says which token it is.
      Tensor x = Tensor::empty({2, 1}, DType::kF64), experts = Tensor::empty({2, 4}, DType::kI32);
      for (int t = 0; t < 2; ++t) {
        x.as<double>()[t] = 2 * world.rank() + t;
        for (int k = 0; k < 4; ++k) experts.as<std::int32_t>()[t * 4 + k] = 3 - k;
      }
      const auto route = dispatch.route(stream, experts, test::normal_tensor({2, 4}, 1));
      route->start_dispatch(stream, x);
      const Tensor rows = route->finish_dispatch(stream);
      const std::vector<double> expected{0, 1, 2, 3, 4, 5, 6, 7};
      EXPECT_TRUE(std::ranges::equal(rows.span<double>(), expected)) << "nodes of " << per_node;
    });
  }
}

TEST(ExpertDispatch, RefusesGroupsThatDoNotDivide) {
  const auto open = [](const ExpertDispatchOptions& options) {
    comm::run_local_group(4, [&](comm::Communicator& world) { ExpertDispatch(world, options); });
  };
  EXPECT_THROW(open({.num_experts = 6}), ContractError);
  EXPECT_THROW(open({.num_experts = 8, .etp = 3}), ContractError);
  EXPECT_THROW(open({.num_experts = 8, .ranks_per_node = 3}), ContractError);
}

}  // namespace
}  // namespace hadal::parallel
