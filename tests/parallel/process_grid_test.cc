// The grid's arithmetic: places, groups that partition the ranks, folding of the expert axes, refusals with every value.
#include "parallel/process_grid.h"

#include <gtest/gtest.h>

#include <set>

#include "core/error.h"

namespace hadal::parallel {
namespace {

using nn::Replication;

/// Every rank is in its own group, and the groups cut the ranks into equal parts.
template <class Group>
void expect_partition(const ProcessGrid& grid, std::int64_t size, Group&& group) {
  std::set<std::vector<int>> groups;
  for (int rank = 0; rank < grid.num_ranks(); ++rank) {
    const std::vector<int> members = group(rank);
    EXPECT_EQ(static_cast<std::int64_t>(members.size()), size);
    EXPECT_NE(std::find(members.begin(), members.end(), rank), members.end());
    groups.insert(members);
  }
  EXPECT_EQ(static_cast<std::int64_t>(groups.size()) * size, grid.num_ranks());
}

TEST(ProcessGrid, GroupsPartitionTheRanks) {
  for (const Degrees& d : {Degrees{2, 2, 2, 2, 2}, Degrees{1, 1, 4, 8, 1}, Degrees{4, 1, 1, 2, 2}, Degrees{1, 4, 1, 4, 4}, Degrees{3, 1, 2, 2, 1}}) {
    const std::int64_t ranks = d.pp * 16;
    const ProcessGrid grid(ranks, d);
    EXPECT_EQ(grid.pp() * grid.dp() * grid.cp() * grid.tp(), ranks);
    EXPECT_EQ(grid.pp() * grid.edp() * grid.ep() * grid.etp(), ranks);
    expect_partition(grid, grid.tp(), [&](int rank) { return grid.tp_group(rank); });
    expect_partition(grid, grid.cp(), [&](int rank) { return grid.cp_group(rank); });
    expect_partition(grid, grid.pp(), [&](int rank) { return grid.pp_group(rank); });
    expect_partition(grid, grid.cp() * grid.tp(), [&](int rank) { return grid.sequence_group(rank); });
    expect_partition(grid, grid.ep() * grid.etp(), [&](int rank) { return grid.expert_group(rank); });
    const auto replicas = [&](Replication replication) {
      return [&grid, replication](int rank) { return grid.replica_group(rank, replication, {grid.place(rank).pp_rank}); };
    };
    expect_partition(grid, grid.stage_ranks(), replicas(Replication::kDense));
    expect_partition(grid, grid.dp() * grid.cp(), replicas(Replication::kTensor));
    expect_partition(grid, grid.edp(), replicas(Replication::kExpert));
  }
}

TEST(ProcessGrid, PlacesFoldTheExpertAxesOverTheSameRanks) {
  const ProcessGrid grid(16, {.pp = 2, .cp = 1, .tp = 2, .ep = 4, .etp = 1});
  const Place p = grid.place(13);  // stage 1, place 5 in it
  EXPECT_EQ(p.pp_rank, 1);
  EXPECT_EQ(p.dp_rank, 2);
  EXPECT_EQ(p.tp_rank, 1);
  EXPECT_EQ(p.edp_rank, 1);
  EXPECT_EQ(p.ep_rank, 1);
  EXPECT_EQ(grid.expert_group(13), (std::vector<int>{12, 13, 14, 15}));
  EXPECT_EQ(grid.describe(13), "pp 1 dp 2 tp 1 ep 1");
}

TEST(ProcessGrid, CopiesOfAStageOnTwoPipelineRanksAreOneGroup) {
  const ProcessGrid grid(8, {.pp = 4, .cp = 1, .tp = 1, .ep = 2, .etp = 1});
  EXPECT_EQ(grid.replica_group(0, Replication::kDense, {0, 3}), (std::vector<int>{0, 1, 6, 7}));
  EXPECT_EQ(grid.replica_group(7, Replication::kDense, {0, 3}), (std::vector<int>{0, 1, 6, 7}));
  EXPECT_EQ(grid.replica_group(1, Replication::kExpert, {0, 3}), (std::vector<int>{1, 7}));
}

void expect_refused(std::int64_t ranks, const Degrees& degrees, std::initializer_list<const char*> words) {
  try {
    const ProcessGrid grid(ranks, degrees);
    ADD_FAILURE() << "nothing was refused";
  } catch (const UserError& error) {
    for (const char* word : words) EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

TEST(ProcessGrid, RefusesWithEveryValue) {
  expect_refused(6, {.pp = 2, .cp = 1, .tp = 2}, {"6 ranks", "pp 2", "cp 1", "tp 2", "product 4"});
  expect_refused(8, {.pp = 2, .cp = 1, .tp = 1, .ep = 8}, {"ep 8", "etp 1", "dp 4", "= 4 ranks", "pp 2"});
}

}  // namespace
}  // namespace hadal::parallel
