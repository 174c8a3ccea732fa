// Guards: a frozen run. 50 steps of configs/model/tiny.yaml in f64 give the losses of tests/golden/tiny_f64.txt to 1e-12 on every
// compiler and instruction set, so that a change of numbers is always deliberate. After a deliberate change, write the file anew:
//   HADAL_WRITE_GOLDEN=1 build/release/tests/test_train --gtest_filter=Golden.*
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "comm/single.h"
#include "config/load.h"
#include "core/file.h"
#include "kernels/cpu/simd/simd.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"
#include "train/trainer.h"

namespace hadal {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(HADAL_SOURCE_DIR) / "tests" / "golden" / "tiny_f64.txt";

std::vector<double> train_tiny() {
  const test::TempDir dir;
  test::write_token_file(dir / "tokens.h5", 2048, 40, 400);
  const std::string text = "include: [" + std::string(HADAL_SOURCE_DIR) +
                           "/configs/model/tiny.yaml]\n"
                           "run: {dir: " +
                           (dir / "run").string() + "}\ndata: {sequence_length: 96, sources: [{path: " + (dir / "tokens.h5").string() +
                           "}]}\n"
                           "train: {steps: 50, global_batch: 2, micro_batch: 1, log_interval: 50}\n"
                           "optim: {lr: 1e-3, schedule: {warmup_steps: 10}}\n"
                           "precision: {compute: f64}\n";
  const LoadedConfig loaded = load_config_text(text, "golden.yaml");
  comm::SingleCommunicator world;
  train::Trainer(loaded, world, true).run();
  return test::column(test::read_metrics(dir / "run"), "loss");
}

TEST(Golden, TinyTakesTheFrozenPath) {
  const std::vector<double> losses = train_tiny();
  ASSERT_EQ(losses.size(), 50u);
  if (std::getenv("HADAL_WRITE_GOLDEN") != nullptr) {
    std::string text;
    for (const double loss : losses) text += fmt::format("{:.17g}\n", loss);
    write_file_atomically(kGolden, text);
    GTEST_FAIL() << kGolden << " was written anew; run again without HADAL_WRITE_GOLDEN";
  }
  std::ifstream file(kGolden);
  for (std::size_t step = 0; step < losses.size(); ++step) {
    double expected = 0;
    ASSERT_TRUE(file >> expected) << kGolden << " ends at step " << step;
    EXPECT_LE(std::abs(losses[step] - expected), 1e-12 * expected) << "step " << step + 1;
  }
}

// The choice of instruction set is made once a process, so the program runs itself again.
int run_again(const char* isa) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("HADAL_ISA", isa, 1);
    ::execl("/proc/self/exe", "test_train", "--gtest_filter=Golden.TinyTakesTheFrozenPath", "--gtest_brief=1", nullptr);
    ::_exit(127);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST(Golden, HoldsOnEveryLowerInstructionSet) {
  using kernels::simd::Isa;
  if (kernels::simd::active_isa() > Isa::kPortable) {
    EXPECT_EQ(run_again("portable"), 0);
  }
  if (kernels::simd::active_isa() > Isa::kAvx2) {
    EXPECT_EQ(run_again("avx2"), 0);
  }
}

}  // namespace
}  // namespace hadal
