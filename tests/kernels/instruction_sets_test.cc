// Guards: every kernel test holds on every instruction set that this machine has, not on the best one alone. The choice is made
// once a process, so the program runs itself again with HADAL_ISA set.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "kernels/cpu/simd/simd.h"

namespace hadal::kernels {
namespace {

int run_again(const char* isa) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("HADAL_ISA", isa, 1);
    execl("/proc/self/exe", "test_kernels", "--gtest_filter=-InstructionSets.*", "--gtest_brief=1", nullptr);
    _exit(127);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST(InstructionSets, KernelTestsHoldOnEachLowerOne) {
  if (std::getenv("HADAL_ISA") != nullptr) GTEST_SKIP() << "HADAL_ISA is set: one instruction set was asked for";
  if (simd::active_isa() > simd::Isa::kPortable) {
    EXPECT_EQ(run_again("portable"), 0);
  }
  if (simd::active_isa() > simd::Isa::kAvx2) {
    EXPECT_EQ(run_again("avx2"), 0);
  }
}

}  // namespace
}  // namespace hadal::kernels
