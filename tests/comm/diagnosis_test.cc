// Who is named, from ledgers as ranks leave them; and the same sentence out of a deadlock of threads.
#include "comm/diagnosis.h"

#include <gtest/gtest.h>

#include <deque>

#include "comm/ledger_report.h"
#include "comm/local/local_group.h"
#include "comm/position.h"
#include "core/error.h"

namespace hadal::comm {
namespace {

using Cause = Diagnosis::Cause;

/// Ranks whose ledgers are written as Communicator does.
struct Ranks {
  explicit Ranks(int size) {
    for (int rank = 0; rank < size; ++rank) {
      ledgers.emplace_back(rank, size);
      ledgers.back().add_group(world_group(size));
    }
    states.assign(static_cast<std::size_t>(size), ProcessState::kRuns);
  }

  /// Rank `rank` is in call `op` of the world; `wait` in it, or it goes on after its begin.
  void enter(int rank, Op op, bool wait = true, int peer = -1) {
    Ledger& ledger = ledgers[static_cast<std::size_t>(rank)];
    const std::uint64_t number =
        ledger.begin(world_group(static_cast<int>(ledgers.size())), 0, op, 64, peer, peer >= 0 ? 3 : -1, peer >= 0 ? 1 : 0);
    if (wait) ledger.wait(number);
    if (!wait) ledger.end(number);
  }
  void at(int rank, const char* phase, int micro_batch, int layer) {
    ledgers[static_cast<std::size_t>(rank)].set_position(phase, micro_batch, layer);
  }
  std::vector<RankView> views() const {
    std::vector<RankView> views;
    for (std::size_t rank = 0; rank < ledgers.size(); ++rank)
      views.push_back({snapshot_of(ledgers[rank].memory()), states[rank]});
    return views;
  }
  std::optional<Diagnosis> diagnose() const { return comm::diagnose(views()); }

  std::deque<Ledger> ledgers;
  std::vector<ProcessState> states;
};

TEST(Diagnosis, nothing_to_say_while_nobody_waits) {
  Ranks ranks(3);
  ranks.enter(1, Op::kBarrier, false);
  EXPECT_FALSE(ranks.diagnose());
}

TEST(Diagnosis, a_stopped_rank_with_its_place_and_the_call_that_the_others_wait_in) {
  Ranks ranks(4);
  for (int rank = 0; rank < 4; ++rank) {
    ranks.enter(rank, Op::kBarrier, false);
    ranks.at(rank, "backward", 2, 5);
    ranks.ledgers[static_cast<std::size_t>(rank)].set_step(7);
    if (rank != 3) ranks.enter(rank, Op::kReduceScatter);
  }
  ranks.states[3] = ProcessState::kStopped;
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kStopped);
  EXPECT_EQ(diagnosis->culprits, std::vector<int>{3});
  EXPECT_EQ(diagnosis->sentence,
            "rank 3 is stopped in backward of micro-batch 2, layer 5 (step 7); ranks 0 1 2 wait for it in reduce_scatter #2 of "
            "world {0 1 2 3}");
}

TEST(Diagnosis, ranks_that_are_gone_come_first_and_are_all_named) {
  Ranks ranks(4);
  ranks.at(1, "forward", 0, 1);
  ranks.enter(2, Op::kReceive, true, 1);
  ranks.states[1] = ProcessState::kGone;
  ranks.states[3] = ProcessState::kGone;
  ranks.states[0] = ProcessState::kStopped;
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kGone);
  EXPECT_EQ(diagnosis->sentence,
            "rank 1 is gone (killed or crashed) in forward of micro-batch 0, layer 1; rank 3 is gone (killed or crashed) in no "
            "named phase; "
            "rank 2 waits for them in receive #1 (tag 3) from rank 1 of world {0 1 2 3}");
}

TEST(Diagnosis, a_rank_that_left_in_good_order_is_not_missed) {
  Ranks ranks(2);
  ranks.ledgers[1].set_ended();
  ranks.states[1] = ProcessState::kGone;
  EXPECT_FALSE(ranks.diagnose());
}

TEST(Diagnosis, a_rank_that_never_comes) {
  Ranks ranks(3);
  ranks.at(1, "optimizer", -1, -1);
  ranks.enter(0, Op::kAllGather);
  ranks.enter(2, Op::kAllGather);
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kAbsent);
  EXPECT_EQ(diagnosis->culprits, std::vector<int>{1});
  EXPECT_EQ(diagnosis->sentence,
            "rank 1 is busy outside any call in optimizer; ranks 0 2 wait for it in all_gather #1 of world {0 1 2}");
}

TEST(Diagnosis, the_end_of_a_chain_is_named_and_not_those_between) {
  Ranks ranks(3);
  ranks.enter(0, Op::kReceive, true, 1);
  ranks.enter(1, Op::kReceive, true, 2);
  ranks.at(2, "data", -1, -1);
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->culprits, std::vector<int>{2});
  EXPECT_EQ(diagnosis->sentence,
            "rank 2 is busy outside any call in data; rank 1 waits for it in receive #1 (tag 3) from rank 2 of world {0 1 2}; "
            "rank 0 waits behind them");
}

TEST(Diagnosis, ranks_that_wait_for_each_other) {
  Ranks ranks(3);
  ranks.enter(0, Op::kReceive, true, 1);
  ranks.enter(1, Op::kBarrier);
  ranks.enter(2, Op::kBarrier);
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kDeadlock);
  EXPECT_EQ(diagnosis->culprits, (std::vector<int>{0, 1}));
  EXPECT_EQ(
      diagnosis->sentence,
      "ranks 0 1 wait for each other: rank 0 in receive #1 (tag 3) from rank 1 of world {0 1 2} in no named phase, rank 1 in "
      "barrier #1 of world {0 1 2} in no named phase");
}

TEST(Diagnosis, a_rank_in_a_debugger_is_not_taken_for_stopped) {
  Ranks ranks(2);
  ranks.enter(0, Op::kBarrier);
  ranks.enter(1, Op::kBarrier);
  ranks.enter(0, Op::kAllGather);
  ranks.states[1] = ProcessState::kHeld;
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kAbsent);
  EXPECT_EQ(diagnosis->sentence,
            "rank 1 is held by a debugger in no named phase; rank 0 waits for it in all_gather #2 of world {0 1}");
}

TEST(Diagnosis, a_report_has_every_rank_and_its_calls) {
  Ranks ranks(2);
  ranks.at(1, "backward", 2, 5);
  ranks.enter(0, Op::kBarrier, false);
  ranks.enter(0, Op::kReceive, true, 1);
  ranks.states[1] = ProcessState::kStopped;
  const std::string report = report_of(ranks.views());
  EXPECT_NE(report.find("stopped          0  backward of micro-batch 2, layer 5               -\n"), std::string::npos) << report;
  EXPECT_NE(report.find("receive #1 (tag 3) from rank 1 of world {0 1}\n"), std::string::npos) << report;
  EXPECT_NE(report.find("last calls of rank 0, newest first\n"), std::string::npos) << report;
  EXPECT_LT(report.find("under way           64  receive #1"), report.find("           64  barrier #1 of world {0 1}")) << report;
}

TEST(Diagnosis, a_message_under_way_is_no_deadlock) {
  Ranks ranks(2);
  ranks.enter(0, Op::kReceive, true, 1);
  ranks.enter(1, Op::kSend, true, 0);
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kUnseen);
  EXPECT_EQ(diagnosis->sentence,
            "rank 0 waits in receive #1 (tag 3) from rank 1 of world {0 1} in no named phase; every other rank that this host "
            "sees has begun it");
}

TEST(Diagnosis, ranks_that_make_different_calls) {
  Ranks ranks(2);
  ranks.at(1, "backward", 1, 0);
  ranks.enter(0, Op::kBarrier);
  ranks.enter(1, Op::kAllReduce);
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kDeadlock);
  EXPECT_EQ(diagnosis->sentence,
            "ranks disagree: rank 0 is in barrier #1 of world {0 1} in no named phase, rank 1 made it all_reduce in backward of "
            "micro-batch 1, layer 0");
}

TEST(Diagnosis, what_cannot_be_seen_is_not_blamed_on_anybody) {
  Ranks ranks(2);
  ranks.enter(0, Op::kBarrier);
  ranks.enter(1, Op::kBarrier);
  const auto diagnosis = ranks.diagnose();
  ASSERT_TRUE(diagnosis);
  EXPECT_EQ(diagnosis->cause, Cause::kUnseen);
  EXPECT_TRUE(diagnosis->culprits.empty());
}

/// The message of the error that ends the group; "" when it ends well.
std::string end_of(int size, const std::function<void(Communicator&)>& body) {
  try {
    run_local_group(size, body);
    return "";
  } catch (const ContractError& error) {
    return error.what();
  }
}

TEST(LocalDeadlock, a_message_that_nobody_sends) {
  const std::string end = end_of(2, [](Communicator& world) {
    const Position position("forward", 1, 4);
    double value = 0;
    if (world.rank() == 0) world.receive(View{&value, DType::kF64, Shape{1}, kCpu}, 1, 5);
    if (world.rank() == 1) world.barrier();
  });
  EXPECT_EQ(end,
            "deadlock: ranks 0 1 wait for each other: rank 0 in receive #1 (tag 5) from rank 1 of world {0 1} in forward of "
            "micro-batch 1, layer "
            "4, rank 1 in barrier #1 of world {0 1} in forward of micro-batch 1, layer 4");
}

TEST(LocalDeadlock, a_rank_that_ends_before_the_others) {
  const std::string end = end_of(3, [](Communicator& world) {
    if (world.rank() != 2) world.barrier();
  });
  EXPECT_EQ(end, "deadlock: rank 2 has ended its work; ranks 0 1 wait for it in barrier #1 of world {0 1 2}");
}

TEST(LocalDeadlock, groups_entered_in_different_orders) {
  const std::string end = end_of(2, [](Communicator& world) {
    const auto a = world.subgroup(std::vector<int>{0, 1}, "a");
    const auto b = world.subgroup(std::vector<int>{0, 1}, "b");
    (world.rank() == 0 ? a : b)->barrier();
    (world.rank() == 0 ? b : a)->barrier();
  });
  EXPECT_NE(end.find("ranks 0 1 wait for each other: rank 0 in barrier #2 of a {0 1}"), std::string::npos) << end;
}

}  // namespace
}  // namespace hadal::comm
