// Checkpoints under faults: killed at any moment, or on a disk that is full, what was committed stays whole, and the next
// commit works.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <numeric>
#include <vector>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/store.h"
#include "core/error.h"
#include "core/parallel_for.h"
#include "tests/support/temp_dir.h"

namespace hadal::checkpoint {
namespace {

namespace fs = std::filesystem;

/// Every element says which step it belongs to.
void write_step(const fs::path& dir, std::int64_t step) {
  Tensor values = Tensor::empty(Shape{64, 1024}, DType::kF32);
  std::iota(values.span<float>().begin(), values.span<float>().end(), static_cast<float>(step));
  CheckpointWriter writer(dir, step, 64 << 10);
  writer.add("values", values);
  writer.commit();
}

void expect_step(const CheckpointReader& reader) {
  const Tensor values = reader.read(reader.at("values"));
  EXPECT_EQ(values.span<float>()[0], static_cast<float>(reader.step()));
  EXPECT_EQ(values.span<float>()[65535], static_cast<float>(reader.step()) + 65535.0f);
}

/// Forked processes have no workers, and may inherit the lock that one of them held.
class CheckpointCrash : public testing::Test {
 protected:
  CheckpointCrash() { set_num_threads(1); }
  ~CheckpointCrash() override { set_num_threads(threads_); }

 private:
  const int threads_ = num_threads();
};

TEST_F(CheckpointCrash, KilledAnywhereLeavesOnlyWholeCheckpoints) {
  const test::TempDir dir;
  const auto start = std::chrono::steady_clock::now();
  write_step(dir.path(), 1);
  const std::chrono::duration<double, std::micro> one_commit = std::chrono::steady_clock::now() - start;
  std::int64_t last = 1;
  // On a busy machine longer, until a child has lived to commit.
  for (int trial = 0; trial < 15 || (last == 1 && trial < 200); ++trial) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (std::int64_t step = last + 1;; ++step) {
        write_step(dir.path(), step);
        keep_newest(dir.path(), 2);
      }
    }
    // From the first microseconds of a commit to the middle of the third.
    ::usleep(static_cast<useconds_t>(one_commit.count() * 2.5 * (trial + 1) / 15));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (const StepDir& step : list_checkpoints(dir.path())) {
      const CheckpointReader reader = CheckpointReader::open(step.path);
      EXPECT_EQ(reader.step(), step.step);
      expect_step(reader);
      EXPECT_GE(step.step, last - 1);
    }
    const std::vector<StepDir> left = list_checkpoints(dir.path());
    ASSERT_FALSE(left.empty()) << "a committed checkpoint went away";
    EXPECT_GE(left.back().step, last);
    last = left.back().step;
  }
  EXPECT_GT(last, 1) << "no child lived long enough to commit";
  write_step(dir.path(), last + 1);
  EXPECT_EQ(open_newest_valid(dir.path())->step(), last + 1);
}

// A file size limit makes allocation or a write fail in the middle of the shard, of the manifest, or of nothing.
TEST_F(CheckpointCrash, AFullDiskFailsCleanlyAndTheNextSaveWorks) {
  const test::TempDir dir;
  write_step(dir.path(), 1);
  int failures = 0;
  for (rlim_t limit = 0; limit < 160 << 10; limit += 8 << 10) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const struct rlimit cap { limit, limit };
      ::setrlimit(RLIMIT_FSIZE, &cap);
      int code = 0;
      try {
        write_step(dir.path(), 2);
      } catch (const IoError&) {
        code = 7;
      } catch (...) {
        code = 8;
      }
      ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status)) << "died with signal " << WTERMSIG(status);
    EXPECT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7) << WEXITSTATUS(status);
    failures += WEXITSTATUS(status) == 7;
    EXPECT_FALSE(fs::exists(dir / "step-2.tmp"));
    EXPECT_EQ(fs::exists(dir / "step-2"), WEXITSTATUS(status) == 0);
    expect_step(CheckpointReader::open(dir / "step-1"));
    fs::remove_all(dir / "step-2");
  }
  EXPECT_GT(failures, 5);
  write_step(dir.path(), 2);
  expect_step(CheckpointReader::open(dir / "step-2"));
}

}  // namespace
}  // namespace hadal::checkpoint
