// When a diagnosis counts: how long it must stand, what sets it back, and who speaks.
#include "train/hang_clock.h"

#include <gtest/gtest.h>

namespace hadal::train {
namespace {

using comm::ProcessState;
using comm::RankView;

/// Rank 0 and 1 wait in the first barrier of {0 1 2}, rank 2 runs.
std::vector<RankView> absent_rank() {
  std::vector<RankView> ranks(3);
  for (int rank = 0; rank < 3; ++rank) {
    RankView& view = ranks[static_cast<std::size_t>(rank)];
    view.ledger.rank = rank;
    view.ledger.progress = 10;
    view.ledger.groups.push_back({.id = 1, .name = "world", .size = 3, .members = {0, 1, 2}, .entered = rank < 2 ? 1u : 0u});
    if (rank == 2) continue;
    comm::CallSnapshot& waiting = view.ledger.waiting.emplace();
    waiting.group = 1;
    waiting.sequence = 1;
    waiting.started_ns = rank;
  }
  return ranks;
}

/// Seconds until the clock speaks, looking once a second; -1: not within `longest`.
int time_to_speak(HangClock& clock, const std::vector<RankView>& ranks, int longest) {
  for (int second = 0; second <= longest; ++second) {
    if (clock.look(ranks, 1)) return second;
  }
  return -1;
}

TEST(HangClock, each_cause_has_its_patience) {
  std::vector<RankView> ranks = absent_rank();
  HangClock silent({.proven_s = 5, .silent_s = 60});
  EXPECT_EQ(time_to_speak(silent, ranks, 100), 60);
  HangClock never({.proven_s = 5, .silent_s = 0});
  EXPECT_EQ(time_to_speak(never, ranks, 1000), -1);
  ranks[2].ledger.position.phase = "save";
  HangClock saving({.proven_s = 5, .silent_s = 60});
  EXPECT_EQ(time_to_speak(saving, ranks, 1000), 300);
  ranks[2].state = ProcessState::kStopped;
  HangClock stopped({.proven_s = 5, .silent_s = 60});
  EXPECT_EQ(time_to_speak(stopped, ranks, 100), 5);
  ranks[2].state = ProcessState::kGone;
  HangClock gone({.proven_s = 5, .silent_s = 60});
  EXPECT_EQ(time_to_speak(gone, ranks, 100), 0);
}

TEST(HangClock, progress_of_the_rank_at_fault_sets_it_back_and_that_of_others_does_not) {
  std::vector<RankView> ranks = absent_rank();
  HangClock clock({.proven_s = 5, .silent_s = 10});
  EXPECT_EQ(time_to_speak(clock, ranks, 8), -1);
  ++ranks[2].ledger.progress;
  EXPECT_EQ(time_to_speak(clock, ranks, 8), -1);
  ++ranks[0].ledger.progress;
  EXPECT_EQ(time_to_speak(clock, ranks, 8), 1);
}

TEST(HangClock, a_stop_that_is_taken_back_is_forgotten) {
  std::vector<RankView> ranks = absent_rank();
  HangClock clock({.proven_s = 5, .silent_s = 60});
  ranks[2].state = ProcessState::kStopped;
  EXPECT_EQ(time_to_speak(clock, ranks, 4), -1);
  ranks[2].state = ProcessState::kRuns;
  EXPECT_FALSE(clock.look(ranks, 1));
  ranks[2].state = ProcessState::kStopped;
  EXPECT_EQ(time_to_speak(clock, ranks, 100), 5);
}

TEST(HangClock, one_rank_speaks) {
  std::vector<RankView> ranks = absent_rank();
  const auto diagnosis = comm::diagnose(ranks);
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(speaker_of(ranks, *diagnosis), 0);
  // Rank 0 runs on elsewhere and looks at nobody: one that waits speaks.
  ranks[0].ledger.waiting.reset();
  EXPECT_EQ(speaker_of(ranks, *diagnosis), 1);
  ranks[0].state = ProcessState::kGone;
  const auto death = comm::diagnose(ranks);
  ASSERT_TRUE(death);
  EXPECT_EQ(speaker_of(ranks, *death), 1);
  ranks[1].ledger.ended = ranks[1].ledger.ends_job = true;
  EXPECT_EQ(speaker_of(ranks, *death), -1);
}

}  // namespace
}  // namespace hadal::train
