// Guards: schedules that overlap a forward with a backward pass compute what one rank computes while tokens travel to experts on
// other ranks, straight or over nodes, beside tensor and context parallelism.
#include <gtest/gtest.h>

#include "config/load.h"
#include "verify/reference.h"
#include "verify/shrink.h"

namespace hadal::verify {
namespace {

struct Case {
  const char* name;
  std::int64_t ranks;
  ParallelSection layout;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

ParallelSection layout_of(ScheduleKind schedule, std::int64_t pp, std::int64_t ep, std::int64_t tp = 1, std::int64_t cp = 1, std::int64_t node = 0) {
  ParallelSection layout;
  layout.schedule = schedule;
  layout.pp = pp;
  layout.ep = ep;
  layout.tp = tp;
  layout.cp = cp;
  layout.ranks_per_node = node;
  return layout;
}

class OverlapLayouts : public testing::TestWithParam<Case> {};

TEST_P(OverlapLayouts, EqualOneRank) {
  const Case& c = GetParam();
  const Config config = load_config(std::string(HADAL_SOURCE_DIR) + "/configs/run/quickstart.yaml").config;
  Config small = shrink(config, c.ranks, 4);
  ASSERT_GT(small.model.moe.num_experts, 0);
  // Enough micro-batches for several overlapped pairs on each rank.
  small.train.global_batch = 32;
  const LayoutResult result = Reference(small).prove(c.layout, c.ranks);
  EXPECT_TRUE(result.passed) << result.name << ": " << result.tensor << " differs by " << result.worst_error << " " << result.problem;
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, OverlapLayouts,
    testing::Values(Case{"dualpipe_ep2", 4, layout_of(ScheduleKind::kDualPipe, 2, 2)},
                    Case{"dualpipe_v_ep2", 4, layout_of(ScheduleKind::kDualPipeV, 2, 2)},
                    Case{"dualpipe_tp2_ep4_nodes", 8, layout_of(ScheduleKind::kDualPipe, 2, 4, 2, 1, 2)},
                    Case{"dualpipe_v_cp2_ep4", 8, layout_of(ScheduleKind::kDualPipeV, 2, 4, 1, 2)}),
    [](const auto& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace hadal::verify
