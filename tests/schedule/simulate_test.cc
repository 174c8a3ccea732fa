// The table and the formulas of spec/parallelism.md 5, row by row.
#include "schedule/simulate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "schedule/make_plan.h"

namespace hadal::schedule {
namespace {

constexpr double kExact = 1e-9;

Simulation run(const Request& request, const StageTimes& times = {}, double pair_factor = 1, double transfer = 0) {
  return simulate(make_plan(request), {{times}, pair_factor, transfer});
}

TEST(Table, one_f_one_b) {
  const Simulation result = run({Kind::kOneFOneB, 8, 20});
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_NEAR(result.bubble(rank), 21, kExact);
    EXPECT_EQ(result.peak_activations[static_cast<std::size_t>(rank)], 8 - rank);
  }
}

TEST(Table, interleaved) {
  const Simulation two = run({Kind::kInterleaved, 8, 24, 2}, {0.5, 0.5, 0.5});
  const Simulation four = run({Kind::kInterleaved, 8, 24, 4}, {0.25, 0.25, 0.25});
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_NEAR(two.bubble(rank), 10.5, kExact);
    EXPECT_NEAR(four.bubble(rank), 5.25, kExact);
  }
  EXPECT_EQ(two.peak_activations.front() / 2.0, 11.5);
  EXPECT_EQ(two.peak_activations.back() / 2.0, 4.5);
  EXPECT_EQ(four.peak_activations.front() / 4.0, 9.75);
  EXPECT_EQ(four.peak_activations.back() / 4.0, 6.25);
}

TEST(Table, zero_bubble_h1) {
  const Simulation result = run({Kind::kZeroBubbleH1, 8, 20});
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_NEAR(result.bubble(rank), 7, kExact);
    EXPECT_EQ(result.peak_activations[static_cast<std::size_t>(rank)], 8);
  }
}

TEST(Table, zero_bubble_h2) {
  const Simulation result = run({Kind::kZeroBubbleH2, 8, 30});
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_NEAR(result.idle_inside[static_cast<std::size_t>(rank)], 0, kExact);
    EXPECT_EQ(result.peak_activations[static_cast<std::size_t>(rank)], 15);
  }
  EXPECT_NEAR(result.bubble(0), 7, kExact);  // the ramp, (P-1) F
}

TEST(Table, dualpipe) {
  for (const int micro_batches : {20, 40}) {
    const Simulation result = run({Kind::kDualPipe, 8, micro_batches});
    for (int rank = 0; rank < 8; ++rank) {
      EXPECT_NEAR(result.bubble(rank), 6, kExact);
      EXPECT_EQ(result.peak_activations[static_cast<std::size_t>(rank)], 9);
    }
  }
}

TEST(Table, dualpipe_with_overlap) {
  const Simulation result = run({Kind::kDualPipe, 8, 20}, {}, 0.8);
  EXPECT_NEAR(result.bubble(3), 4.2, kExact);
  EXPECT_NEAR(result.bubble(4), 4.2, kExact);
  EXPECT_NEAR(result.bubble(0), 3.0, kExact);
  EXPECT_NEAR(result.bubble(7), 3.0, kExact);
  EXPECT_EQ(std::ranges::count(result.peak_activations, 9), 8);
}

TEST(Table, dualpipe_v) {
  const Simulation result = run({Kind::kDualPipeV, 4, 10});
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_NEAR(result.bubble(rank), 6, kExact);
    EXPECT_EQ(result.peak_activations[static_cast<std::size_t>(rank)], 9);
  }
}

TEST(Formula, gpipe_and_1f1b_have_the_same_bubble) {
  const StageTimes times{1.1, 0.9, 1.3};
  for (const int micro_batches : {3, 8, 21}) {
    const double expected = 5 * (times.forward + times.input + times.weight);
    EXPECT_NEAR(run({Kind::kGpipe, 6, micro_batches}, times).bubble(2), expected, kExact);
    EXPECT_NEAR(run({Kind::kOneFOneB, 6, micro_batches}, times).bubble(2), expected, kExact);
  }
  EXPECT_EQ(run({Kind::kGpipe, 6, 21}).peak_activations, std::vector<int>(6, 21));
}

TEST(Formula, interleaved) {
  const StageTimes times{1.1, 0.9, 1.3};
  for (const int chunks : {2, 3}) {
    const Simulation result =
        run({Kind::kInterleaved, 4, 12, chunks}, {times.forward / chunks, times.input / chunks, times.weight / chunks});
    EXPECT_NEAR(result.bubble(0), 3 * (times.forward + times.input + times.weight) / chunks, kExact);
    EXPECT_EQ(result.peak_activations[0], 2 * 3 + (chunks - 1) * 4 + 1);
  }
}

TEST(Formula, zero_bubble_h1_when_weights_are_the_shorter) {
  for (const StageTimes& times : {StageTimes{1, 1, 1}, {1.2, 1.1, 0.7}, {0.8, 1.3, 0.8}}) {
    EXPECT_NEAR(run({Kind::kZeroBubbleH1, 8, 20}, times).bubble(0), 7 * (times.forward + times.input - times.weight), kExact);
  }
  // and the spec's example of weights that take longer
  EXPECT_NEAR(run({Kind::kZeroBubbleH1, 8, 20}, {1, 0.9, 1.1}).bubble(0), 7.0, kExact);
}

TEST(Formula, dualpipe_on_the_middle_ranks) {
  EXPECT_NEAR(run({Kind::kDualPipe, 8, 20}, {1, 1, 0.7}).bubble(3), 6.9, kExact);
  EXPECT_NEAR(run({Kind::kDualPipe, 8, 20}, {1, 1.3, 1}).bubble(3), 6.9, kExact);
  EXPECT_NEAR(run({Kind::kDualPipe, 8, 20}, {1, 0.8, 0.8}).bubble(3), 6.0, kExact);
}

TEST(Formula, dualpipe_is_two_pipelines_of_dualpipe_v) {
  for (const int ranks : {2, 4, 6}) {
    const double one = run({Kind::kDualPipeV, ranks, 3 * ranks}, {1, 1, 0.7}, 0.9).makespan;
    EXPECT_NEAR(run({Kind::kDualPipe, 2 * ranks, 6 * ranks}, {1, 1, 0.7}, 0.9).makespan, one, kExact);
  }
}

TEST(Simulate, transfers_lengthen_the_ramp) {
  EXPECT_NEAR(run({Kind::kGpipe, 4, 8}, {}, 1, 0.25).makespan, run({Kind::kGpipe, 4, 8}).makespan + 2 * 3 * 0.25, kExact);
  // the turn of the V stays on its rank
  EXPECT_NEAR(run({Kind::kDualPipeV, 1, 2}, {}, 1, 5).makespan, run({Kind::kDualPipeV, 1, 2}).makespan, kExact);
}

TEST(Simulate, stages_of_their_own_length) {
  const Plan plan = make_plan({Kind::kOneFOneB, 2, 3});
  const Simulation result = simulate(plan, {{{1, 1, 1}, {2, 2, 2}}, 1, 0});
  EXPECT_NEAR(result.makespan, 1 + 3 * 6 + 2, kExact);
  EXPECT_NEAR(result.busy[0], 9, kExact);
  EXPECT_NEAR(result.busy[1], 18, kExact);
  EXPECT_NEAR(result.bubble_share(), 1 - 27.0 / 42.0, kExact);
}

}  // namespace
}  // namespace hadal::schedule
