// Ranks as threads of one process: every collective, and the end of a group whose rank fails.
#include "comm/local/local_group.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <stdexcept>
#include <thread>

#include "comm/single.h"
#include "core/error.h"
#include "tests/support/communicator_checks.h"

namespace hadal::comm {
namespace {

class LocalGroup : public testing::TestWithParam<int> {};

TEST_P(LocalGroup, every_collective) {
  std::vector<std::string> wrong(static_cast<std::size_t>(GetParam()));
  run_local_group(GetParam(),
                  [&](Communicator& world) { wrong[static_cast<std::size_t>(world.rank())] = test::check_collectives(world); });
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
}
INSTANTIATE_TEST_SUITE_P(sizes, LocalGroup, testing::Values(1, 2, 3, 4, 8));

TEST(SingleGroup, every_collective) {
  SingleCommunicator world;
  EXPECT_EQ(test::check_collectives(world), "");
}

TEST(LocalGroup, a_failing_rank_ends_the_others) {
  EXPECT_THROW(run_local_group(4,
                               [](Communicator& world) {
                                 world.barrier();
                                 if (world.rank() == 2) throw std::runtime_error("rank 2 fails");
                                 world.barrier();
                               }),
               std::runtime_error);
}

TEST(LocalGroup, a_failing_rank_ends_those_who_wait_in_other_groups) {
  EXPECT_THROW(run_local_group(4,
                               [](Communicator& world) {
                                 const int pair = world.rank() / 2 * 2;
                                 const auto mine = world.subgroup(std::vector<int>{pair, pair + 1}, "pair");
                                 double value = 1;
                                 const View view{&value, DType::kF64, Shape{1}, kCpu};
                                 if (world.rank() == 3) throw std::runtime_error("rank 3 fails");
                                 // Rank 0 waits for a message that rank 1 will not send, rank 1 in the world, rank 2 in its pair.
                                 if (world.rank() == 0) mine->receive(view, 1, 0);
                                 if (world.rank() == 1) world.barrier();
                                 mine->all_reduce_sum(view);
                               }),
               std::runtime_error);
}

TEST(LocalGroup, waiting_costs_no_processor_time) {
  const std::clock_t before = std::clock();
  run_local_group(8, [](Communicator& world) {
    if (world.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(400));
    world.barrier();
  });
  EXPECT_LT(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC, 0.2);
}

TEST(LocalGroup, a_message_of_another_length_is_refused) {
  EXPECT_THROW(run_local_group(2,
                               [](Communicator& world) {
                                 std::vector<float> values(4, 1.0f);
                                 if (world.rank() == 0) world.send(View{values.data(), DType::kF32, Shape{3}, kCpu}, 1, 0);
                                 if (world.rank() == 1) world.receive(View{values.data(), DType::kF32, Shape{4}, kCpu}, 0, 0);
                               }),
               ContractError);
}

TEST(LocalGroup, a_group_names_each_rank_once_and_this_one) {
  run_local_group(2, [](Communicator& world) {
    EXPECT_THROW(world.subgroup(std::vector<int>{1 - world.rank()}, "other"), ContractError);
    EXPECT_THROW(world.subgroup(std::vector<int>{0, 0, 1}, "twice"), ContractError);
    EXPECT_THROW(world.subgroup(std::vector<int>{0, 1, 2}, "beyond"), ContractError);
  });
}

TEST(LocalGroup, ranks_that_disagree_are_refused) {
  EXPECT_THROW(run_local_group(2,
                               [](Communicator& world) {
                                 std::vector<float> values(static_cast<std::size_t>(4 + world.rank()), 1.0f);
                                 world.all_reduce_sum(View{values.data(), DType::kF32, Shape{4 + world.rank()}, kCpu});
                               }),
               ContractError);
}

}  // namespace
}  // namespace hadal::comm
