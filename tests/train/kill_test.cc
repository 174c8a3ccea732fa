// Guards: a run that is killed with SIGKILL at arbitrary moments, over and over, ends with the bits of an undisturbed one; SIGUSR1 ends a
// run with exit code 75 after a good save, and it goes on from there.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "checkpoint/checkpoint_reader.h"
#include "core/rng.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

/// A `hadal train` of its own process, messages thrown away.
class TrainProcess {
 public:
  TrainProcess(const test::SmallRun& run, const std::filesystem::path& run_dir) {
    const std::string config = run.config_path().string(), dir = "run.dir=" + run_dir.string();
    const std::string source = "data.sources=[{path: " + (run.dir / "tokens.h5").string() + "}]";
    pid_ = ::fork();
    if (pid_ == 0) {
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, 2);
      ::execl(HADAL_BINARY, "hadal", "train", config.c_str(), dir.c_str(), source.c_str(), "train.steps=40", "checkpoint.interval=4", "run.threads=1",
              nullptr);
      ::_exit(127);
    }
  }

  void signal(int number) const { ::kill(pid_, number); }
  /// Exit code, or minus the signal that ended it.
  int wait() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_;
};

void expect_same_run(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* key : {"loss", "mtp_loss", "grad_norm"}) {
    const auto x = test::column(test::read_metrics(a), key), y = test::column(test::read_metrics(b), key);
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(x[i], y[i]) << key << " at step " << i + 1;
  }
  const auto x = checkpoint::CheckpointReader::open(a / "checkpoints" / "step-40"), y = checkpoint::CheckpointReader::open(b / "checkpoints" / "step-40");
  ASSERT_EQ(x.tensors().size(), y.tensors().size());
  for (std::size_t i = 0; i < x.tensors().size(); ++i) EXPECT_EQ(x.tensors()[i].hash, y.tensors()[i].hash) << x.tensors()[i].name;
}

TEST(Kill, AnyMomentIsSurvivedBitForBit) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(TrainProcess(run, dir / "straight").wait(), 0);
  const auto whole = std::chrono::steady_clock::now() - begin;
  const Random random(static_cast<std::uint64_t>(::getpid()), RandomPurpose::kSynthetic);
  int kills = 0, code = -SIGKILL;
  for (; kills < 60 && code == -SIGKILL; ++kills) {
    const TrainProcess process(run, dir / "killed");
    std::this_thread::sleep_for(whole * (0.05 + 0.5 * random.uniform(static_cast<std::uint64_t>(kills))));
    process.signal(SIGKILL);
    code = process.wait();
  }
  if (code == -SIGKILL) code = TrainProcess(run, dir / "killed").wait();
  EXPECT_EQ(code, 0);
  EXPECT_GT(kills, 1);
  expect_same_run(dir / "straight", dir / "killed");
}

TEST(Stop, UserSignalSavesAndExits75) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  ASSERT_EQ(TrainProcess(run, dir / "straight").wait(), 0);
  const TrainProcess process(run, dir / "stopped");
  while (!std::filesystem::exists(dir / "stopped" / "checkpoints" / "step-4")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  process.signal(SIGUSR1);
  EXPECT_EQ(process.wait(), 75);
  EXPECT_FALSE(std::filesystem::exists(dir / "stopped" / "checkpoints" / "step-40"));
  EXPECT_EQ(TrainProcess(run, dir / "stopped").wait(), 0);
  expect_same_run(dir / "straight", dir / "stopped");
}

}  // namespace
}  // namespace hadal
