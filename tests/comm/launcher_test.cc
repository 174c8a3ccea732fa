// Launcher variables: who is recognised, and the singleton trap.
#include "comm/launcher.h"

#include <gtest/gtest.h>

#include <map>

namespace hadal::comm {
namespace {

Launcher detect(const std::map<std::string, std::string>& variables) {
  return detect_launcher([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launcher, plain_process) { EXPECT_FALSE(detect({}).present()); }

TEST(Launcher, open_mpi) {
  const Launcher launcher =
      detect({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(launcher.variable, "OMPI_COMM_WORLD_SIZE");
  EXPECT_EQ(launcher.size, 4);
  EXPECT_EQ(launcher.rank, 3);
  EXPECT_EQ(launcher.local_size, 2);
}

TEST(Launcher, shell_of_a_slurm_allocation_is_a_plain_process) {
  EXPECT_FALSE(detect({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}).present());
  EXPECT_FALSE(detect({{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}}).present());
  const Launcher step =
      detect({{"SLURM_STEP_NUM_TASKS", "12"}, {"SLURM_PROCID", "5"}, {"SLURM_STEP_TASKS_PER_NODE", "4(x3)"}});
  EXPECT_EQ(step.size, 12);
  EXPECT_EQ(step.rank, 5);
  EXPECT_EQ(step.local_size, 4);
}

TEST(Launcher, pmix_alone_says_no_size) {
  const Launcher launcher = detect({{"PMIX_RANK", "1"}});
  EXPECT_TRUE(launcher.present());
  EXPECT_EQ(launcher.size, std::nullopt);
}

TEST(Launcher, term_is_a_request_unless_mpirun_may_have_sent_it_for_a_dead_peer) {
  EXPECT_TRUE(detect({}).term_asks());
  EXPECT_TRUE(detect({{"OMPI_COMM_WORLD_SIZE", "1"}}).term_asks());
  EXPECT_FALSE(detect({{"OMPI_COMM_WORLD_SIZE", "2"}}).term_asks());
  EXPECT_TRUE(detect({{"SLURM_STEP_NUM_TASKS", "2"}}).term_asks());
  EXPECT_FALSE(detect({{"OMPI_COMM_WORLD_SIZE", "2"}, {"SLURM_STEP_NUM_TASKS", "2"}}).term_asks()) << "mpirun inside a Slurm step";
  EXPECT_FALSE(detect({{"PMIX_RANK", "0"}}).term_asks());
}

TEST(Launcher, garbage_is_ignored) {
  EXPECT_FALSE(detect({{"OMPI_COMM_WORLD_SIZE", "four"}}).present());
  EXPECT_FALSE(detect({{"OMPI_COMM_WORLD_SIZE", "4x"}}).present());
}

TEST(Launcher, singleton_trap) {
  const Launcher two = detect({{"SLURM_STEP_NUM_TASKS", "2"}});
  EXPECT_EQ(singleton_trap(two, 2), "");
  EXPECT_NE(singleton_trap(two, 1).find("SLURM_STEP_NUM_TASKS"), std::string::npos);
  EXPECT_EQ(singleton_trap(detect({}), 1), "");
}

}  // namespace
}  // namespace hadal::comm
