// Layouts equal one rank: of every kind of model a covering set, of one model with everything in it each split of up to eight ranks.
#include "verify/layouts.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

#include "tests/verify/small_models.h"
#include "verify/reference.h"
#include "verify/shrink.h"

namespace hadal::verify {
namespace {

void expect_equal(const Reference& reference, const ParallelSection& layout, std::int64_t ranks) {
  const LayoutResult result = reference.prove(layout, ranks);
  EXPECT_TRUE(result.passed) << ranks << " ranks, " << result.name << ": " << result.tensor << " differs by " << result.worst_error << "; "
                             << result.problem;
}

class KindOfModel : public testing::TestWithParam<test::Kind> {};

TEST_P(KindOfModel, covering_layouts_equal_one_rank) {
  for (const std::int64_t ranks : {2, 4, 8}) {
    const Reference reference(shrink(GetParam().config, ranks, 6));
    const std::vector<ParallelSection> layouts = covering_layouts(reference.config(), ranks);
    EXPECT_GE(layouts.size(), 6U);  // each schedule at least
    for (const ParallelSection& layout : layouts) expect_equal(reference, layout, ranks);
  }
}

INSTANTIATE_TEST_SUITE_P(layouts, KindOfModel, testing::ValuesIn(test::kinds()),
                         [](const testing::TestParamInfo<test::Kind>& kind) { return kind.param.name; });

TEST(ExpertRoom, equals_one_rank_however_tight) {
  const Reference reference(shrink(test::everything(), 8, 8));
  for (const double capacity : {1.0, 100.0}) {
    for (const test::Split& split : {test::Split{.ep = 8},
                                     {.tp = 2, .cp = 2, .ep = 4, .etp = 2},
                                     {.pp = 2, .ep = 4, .schedule = ScheduleKind::kDualPipe},
                                     {.ep = 8, .ranks_per_node = 4},
                                     {.tp = 2, .ep = 4, .etp = 2, .ranks_per_node = 4}}) {
      ParallelSection layout = split.section();
      layout.expert_capacity = capacity;
      expect_equal(reference, layout, 8);
    }
  }
}

/// Every split of `ranks` ranks once; schedules and dispatches take turns.
std::vector<ParallelSection> every_split(const Config& small, std::int64_t ranks) {
  using Split = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  std::map<Split, std::vector<ParallelSection>> variants;
  for (const ParallelSection& p : all_layouts(small, ranks)) variants[{p.pp, p.cp, p.tp, p.ep, p.etp}].push_back(p);
  std::vector<ParallelSection> layouts;
  std::size_t turn = 0;
  for (const auto& [split, of_split] : variants) layouts.push_back(of_split[turn++ % of_split.size()]);
  return layouts;
}

Config model_of_splits(std::int64_t ranks, std::int64_t pp) {
  Config config = test::everything();
  config.model.mtp.depth = 1;  // for time's sake; two modules are met by the covering sets
  Config small = shrink(config, ranks, pp);
  if (pp == 1) small.train.global_batch = 2 * ranks;  // no pipeline to fill
  return small;
}

/// Ranks, pipeline ranks, and how many splits there are: sum over (dp, cp, tp) of (ep, etp).
class EverySplit : public testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, std::size_t>> {};

TEST_P(EverySplit, equals_one_rank) {
  const auto [ranks, pp, splits] = GetParam();
  const Reference reference(model_of_splits(ranks, pp));
  std::size_t count = 0;
  for (const ParallelSection& layout : every_split(reference.config(), ranks)) {
    if (layout.pp != pp) continue;
    expect_equal(reference, layout, ranks);
    ++count;
  }
  EXPECT_EQ(count, splits);
}

INSTANTIATE_TEST_SUITE_P(layouts, EverySplit,
                         testing::Values(std::tuple(2, 1, 9), std::tuple(2, 2, 1), std::tuple(4, 1, 36), std::tuple(4, 2, 9), std::tuple(4, 4, 1),
                                         std::tuple(8, 1, 100), std::tuple(8, 2, 36), std::tuple(8, 4, 9), std::tuple(8, 8, 1)),
                         [](const testing::TestParamInfo<EverySplit::ParamType>& split) {
                           return "ranks_" + std::to_string(std::get<0>(split.param)) + "_pp_" + std::to_string(std::get<1>(split.param));
                         });

TEST(EverySplits, meet_every_schedule_and_both_dispatches) {
  std::set<ScheduleKind> schedules;
  std::set<bool> two_hops;
  for (const std::int64_t pp : {1, 2, 4, 8}) {
    for (const ParallelSection& layout : every_split(model_of_splits(8, pp), 8)) {
      if (layout.pp != pp) continue;
      if (pp > 1) schedules.insert(layout.schedule);
      if (layout.ep > 1) two_hops.insert(layout.ranks_per_node > 0);
    }
  }
  EXPECT_EQ(schedules.size(), 7U);
  EXPECT_EQ(two_hops.size(), 2U);
}

/// Every schedule on the pipelines of all ranks, where each stage is a layer or less.
class DeepPipeline : public testing::TestWithParam<std::int64_t> {};

TEST_P(DeepPipeline, equals_one_rank_under_every_schedule) {
  const std::int64_t pp = GetParam();
  const Reference reference(shrink(test::everything(), 8, 2 * pp));
  std::set<ScheduleKind> schedules;
  for (const ParallelSection& layout : all_layouts(reference.config(), pp)) {
    if (layout.pp != pp) continue;
    expect_equal(reference, layout, pp);
    schedules.insert(layout.schedule);
  }
  EXPECT_EQ(schedules.size(), 7U);
}

INSTANTIATE_TEST_SUITE_P(layouts, DeepPipeline, testing::Values(4, 8), testing::PrintToStringParamName());

}  // namespace
}  // namespace hadal::verify
