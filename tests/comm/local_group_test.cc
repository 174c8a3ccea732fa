// Ranks as threads of one process: every collective, and the end of a group whose rank fails.
#include "comm/local/local_group.h"

#include <gtest/gtest.h>

#include <stdexcept>

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
