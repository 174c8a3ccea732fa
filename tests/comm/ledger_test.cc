// The ledger: what is recorded, where the rank is, and that another process could read the same from the file.
#include "comm/ledger.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "comm/ledger_snapshot.h"
#include "comm/local/local_group.h"
#include "comm/position.h"
#include "comm/single.h"

namespace hadal::comm {
namespace {

View view_of(std::vector<double>& values) {
  return {values.data(), DType::kF64, Shape{static_cast<std::int64_t>(values.size())}, kCpu};
}

TEST(Ledger, a_call_is_recorded_with_its_group_bytes_and_place) {
  run_local_group(2, [](Communicator& world) {
    const auto pair = world.subgroup(std::vector<int>{1, 0}, "pair");
    std::vector<double> part(5, 1.0);
    std::vector<double> all(10, 1.0);
    {
      const Position micro_batch("backward", 3);
      const Position layer(nullptr, Position::kInherit, 7);
      pair->reduce_scatter_sum(view_of(all), view_of(part));
      const RankSnapshot inside = snapshot_of(world.ledger()->memory());
      EXPECT_EQ(inside.position.str(), "backward of micro-batch 3, layer 7");
    }
    if (world.rank() == 0) world.send(view_of(part), 1, 9);
    if (world.rank() == 1) world.receive(view_of(part), 0, 9);
    const RankSnapshot snapshot = snapshot_of(world.ledger()->memory());
    EXPECT_EQ(snapshot.position.str(), "");
    EXPECT_EQ(snapshot.rank, world.rank());
    EXPECT_EQ(snapshot.process.pid, getpid());
    EXPECT_FALSE(snapshot.waiting);
    ASSERT_EQ(snapshot.calls.size(), 3u);
    EXPECT_EQ(snapshot.calls[0].op, Op::kSubgroup);
    const CallSnapshot& sum = snapshot.calls[1];
    EXPECT_EQ(sum.op, Op::kReduceScatter);
    EXPECT_EQ(sum.bytes, 80);
    EXPECT_EQ(sum.sequence, 2u);
    EXPECT_EQ(sum.position.str(), "backward of micro-batch 3, layer 7");
    EXPECT_GE(sum.done_ns, sum.started_ns);
    const CallSnapshot& message = snapshot.calls[2];
    EXPECT_EQ(message.op, world.rank() == 0 ? Op::kSend : Op::kReceive);
    EXPECT_EQ(message.peer, 1 - world.rank());
    EXPECT_EQ(message.tag, 9);
    EXPECT_EQ(message.sequence, 1u);
    const GroupSnapshot* group = snapshot.group(sum.group);
    ASSERT_NE(group, nullptr);
    EXPECT_EQ(group->name, "pair");
    EXPECT_EQ(group->members, (std::vector<int>{1, 0}));
    EXPECT_EQ(group->entered, 2u);
  });
}

TEST(Ledger, the_last_64_calls_are_kept_and_groups_that_are_gone_are_not) {
  run_local_group(2, [](Communicator& world) {
    for (int i = 0; i < 300; ++i) world.subgroup(std::vector<int>{0, 1}, "short-lived")->barrier();
    for (int i = 0; i < 100; ++i) world.barrier();
    const RankSnapshot snapshot = snapshot_of(world.ledger()->memory());
    ASSERT_EQ(snapshot.calls.size(), 64u);
    EXPECT_EQ(snapshot.calls.front().sequence, 37u);
    EXPECT_EQ(snapshot.calls.back().sequence, 100u);
    ASSERT_EQ(snapshot.groups.size(), 1u);
    EXPECT_EQ(snapshot.groups[0].name, "world");
  });
}

TEST(Ledger, a_started_call_is_waited_in_only_from_its_wait_on) {
  run_local_group(2, [](Communicator& world) {
    std::vector<double> values(3, 1.0);
    Handle handle = world.start_all_reduce_sum(view_of(values));
    RankSnapshot snapshot = snapshot_of(world.ledger()->memory());
    EXPECT_FALSE(snapshot.waiting);
    EXPECT_EQ(snapshot.calls.back().done_ns, 0);
    handle.wait();
    EXPECT_GT(snapshot_of(world.ledger()->memory()).calls.back().done_ns, 0);
  });
}

TEST(Ledger, in_a_file_others_read_what_is_written_later) {
  const auto file = std::filesystem::temp_directory_path() / fmt::format("hadal-ledger-{}", getpid());
  std::ofstream(file) << "something else";
  EXPECT_EQ(LedgerFile::open(file), nullptr);
  {
    Ledger ledger(2, 4);
    const int slot = ledger.add_group(world_group(4));
    ledger.begin(world_group(4), slot, Op::kBarrier, 0);
    ledger.move_to(file);
    const auto reader = LedgerFile::open(file);
    ASSERT_NE(reader, nullptr);
    const std::uint64_t number = ledger.begin(world_group(4), slot, Op::kBarrier, 0);
    ledger.wait(number);
    ledger.set_step(12);
    const RankSnapshot snapshot = reader->snapshot();
    EXPECT_EQ(snapshot.rank, 2);
    EXPECT_EQ(snapshot.step, 12);
    ASSERT_TRUE(snapshot.waiting);
    EXPECT_EQ(snapshot.waiting->sequence, 2u);
    EXPECT_EQ(snapshot.calls.size(), 2u);
    EXPECT_EQ(state_of(snapshot.process), ProcessState::kRuns);
    ledger.move_to(file);
    ledger.set_ended();
    EXPECT_FALSE(reader->snapshot().ended) << "the old file is replaced, not written over";
    EXPECT_TRUE(LedgerFile::open(file)->snapshot().ended);
  }
  std::filesystem::remove(file);
}

TEST(Ledger, one_rank_keeps_none) {
  SingleCommunicator world;
  EXPECT_EQ(world.ledger(), nullptr);
  const Position position("forward", 1, 2);
}

// A step of some milliseconds makes some hundreds of calls: 1 % is 100 ns and more for each.
TEST(Ledger, a_call_costs_about_a_tenth_of_a_microsecond) {
  Ledger ledger(0, 2);
  const Group group = world_group(2);
  const int slot = ledger.add_group(group);
  constexpr int kCalls = 100000;
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; ++i) {
      const Position position("backward", i, 3);
      LedgerCall call(ledger, ledger.begin(group, slot, Op::kAllGather, 64));
      call.wait();
    }
    best = std::min(best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / kCalls);
  }
  RecordProperty("ns_per_call", std::to_string(best));
  fmt::print("{:.0f} ns for a call and a position\n", best);
  EXPECT_LT(best, 3000);  // sanitizers included
}

}  // namespace
}  // namespace hadal::comm
