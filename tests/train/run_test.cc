// Guards: N ranks train as one; two runs have the same bits at any thread count; a run that stops and resumes has the bits of one that
// does not; the golden run of tests/train/golden_test.cc apart.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "checkpoint/checkpoint_reader.h"
#include "core/error.h"
#include "core/parallel_for.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

using test::column;
using test::SmallRun;

void expect_same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i], b[i]) << "step " << i + 1;
}

/// Every tensor of two checkpoints, by content hash.
void expect_same_state(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto x = checkpoint::CheckpointReader::open(a), y = checkpoint::CheckpointReader::open(b);
  ASSERT_EQ(x.tensors().size(), y.tensors().size());
  for (std::size_t i = 0; i < x.tensors().size(); ++i) {
    EXPECT_EQ(x.tensors()[i].name, y.tensors()[i].name);
    EXPECT_EQ(x.tensors()[i].hash, y.tensors()[i].hash) << x.tensors()[i].name;
  }
}

TEST(Run, LearnsAndCountsEverything) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  const auto rows = run.train("a", 1, {"train.steps=40"});
  ASSERT_EQ(rows.size(), 40u);
  const auto loss = column(rows, "loss");
  EXPECT_NEAR(loss.front(), std::log(64.0), 0.8);
  EXPECT_LT(loss.back(), loss.front() - 0.2);
  EXPECT_EQ(rows.back().number("tokens"), 40.0 * 8 * 24);
  EXPECT_NE(rows.back().array("moe.layer_1.load"), nullptr);
  EXPECT_NE(rows.back().array("moe.layer_3.load"), nullptr);  // the second MTP module's
}

class Ranks : public testing::TestWithParam<int> {};

TEST_P(Ranks, EqualOneRank) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  const auto one = run.train("one");
  const auto many = run.train("many", GetParam());
  for (const char* key : {"loss", "mtp_loss", "balance_loss", "grad_norm"}) {
    const auto a = column(many, key), b = column(one, key);
    ASSERT_EQ(a.size(), 20u);
    ASSERT_EQ(b.size(), 20u);
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_LE(std::abs(a[i] - b[i]), 1e-12 * std::abs(b[i])) << key << " at step " << i + 1;
  }
}

TEST_P(Ranks, SeeTheSameBatchesDuringARamp) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {"train.steps=8", "train.batch_ramp.start=2", "train.batch_ramp.tokens=600"}};
  const auto one = run.train("one"), many = run.train("many", GetParam());
  ASSERT_EQ(one.size(), 8u);
  EXPECT_LT(one.front().number("samples"), 8.0);
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].number("samples"), many[i].number("samples")) << "step " << i + 1;
    EXPECT_LE(std::abs(*one[i].number("loss") - *many[i].number("loss")), 1e-12 * *one[i].number("loss")) << "step " << i + 1;
  }
}

TEST_P(Ranks, ResumeWithTheSameBits) {
  const test::TempDir dir;
  for (const char* moments : {"optim.moments=compute", "optim.moments=bf16"}) {
    const SmallRun run{dir.path(), {moments, "optim.ema_decay=0.9", "optim.schedule.decay_steps=17"}};
    const std::string name = moments;
    const auto straight = run.train("straight" + name, GetParam());
    run.train("stopped" + name, GetParam(), {"train.steps=7"});
    const auto resumed = run.train("stopped" + name, GetParam());
    for (const char* key : {"loss", "mtp_loss", "grad_norm"}) expect_same_bits(column(straight, key), column(resumed, key));
    expect_same_state(dir / ("straight" + name) / "checkpoints" / "step-20", dir / ("stopped" + name) / "checkpoints" / "step-20");
  }
}

TEST_P(Ranks, TakeUpARunOfAnotherNumberOfRanks) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {"optim.ema_decay=0.9", "optim.schedule.decay_steps=17"}};
  const auto one = run.train("one");
  run.train("many", GetParam(), {"train.steps=7"});
  run.train("many", GetParam() - 1, {"train.steps=13"});
  const auto resumed = run.train("many", GetParam() + 1);
  const auto a = column(resumed, "loss"), b = column(one, "loss");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_LE(std::abs(a[i] - b[i]), 1e-12 * b[i]) << "step " << i + 1;
}

INSTANTIATE_TEST_SUITE_P(Counts, Ranks, testing::Values(2, 3, 4));

TEST(Run, MicroBatchesDoNotChangeTheStep) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  const auto a = column(run.train("a", 1, {"train.micro_batch=1"}), "loss"), b = column(run.train("b", 1, {"train.micro_batch=8"}), "loss");
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_LE(std::abs(a[i] - b[i]), 1e-12 * b[i]) << "step " << i + 1;
}

TEST(Run, SameBitsTwiceAndForAnyThreadCount) {
  for (const char* compute : {"precision.compute=f64", "precision.compute=f32"}) {
    const test::TempDir dir;
    const SmallRun run{dir.path(), {compute}};
    set_num_threads(1);
    const auto one = run.train("one"), again = run.train("again");
    set_num_threads(2);
    const auto two = run.train("two");
    set_num_threads(3);
    const auto three = run.train("three");
    set_num_threads(available_cores());
    for (const char* key : {"loss", "mtp_loss", "grad_norm"}) {
      expect_same_bits(column(one, key), column(again, key));
      expect_same_bits(column(one, key), column(two, key));
      expect_same_bits(column(one, key), column(three, key));
    }
    expect_same_state(dir / "one" / "checkpoints" / "step-20", dir / "three" / "checkpoints" / "step-20");
  }
}

TEST(Run, ResumesWithTheSameBitsAtAnyStep) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  const auto straight = run.train("straight");
  for (const int stop : {1, 7, 19}) {
    const std::string name = "stopped-" + std::to_string(stop);
    // The schedule's length is part of the config: a shorter first leg needs its own end, the same rates.
    run.train(name, 1, {"train.steps=" + std::to_string(stop), "optim.schedule.decay_steps=17"});
    const auto resumed = run.train(name, 1, {"optim.schedule.decay_steps=17"});
    for (const char* key : {"loss", "mtp_loss", "grad_norm"}) expect_same_bits(column(straight, key), column(resumed, key));
    expect_same_state(dir / "straight" / "checkpoints" / "step-20", dir / name / "checkpoints" / "step-20");
  }
}

TEST(Run, KeepsTheLastCheckpoints) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {"checkpoint.interval=5", "checkpoint.keep_last=2"}};
  run.train("a");
  EXPECT_FALSE(std::filesystem::exists(dir / "a" / "checkpoints" / "step-10"));
  EXPECT_TRUE(std::filesystem::exists(dir / "a" / "checkpoints" / "step-15"));
  EXPECT_TRUE(std::filesystem::exists(dir / "a" / "checkpoints" / "step-20"));
}

TEST(Run, MtpModulesMayBeAbsentInTheWeightsItStartsFrom) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  run.train("plain", 1, {"model.mtp.depth=0"});
  const auto with_mtp = run.train("with", 1, {"run.init_from=" + (dir / "plain").string(), "train.steps=1"});
  const auto again = run.train("without", 1, {"run.init_from=" + (dir / "with").string(), "train.steps=1", "model.mtp.depth=1"});
  EXPECT_NEAR(column(with_mtp, "mtp_loss").front(), std::log(64.0), 0.8);  // a fresh module
  EXPECT_LT(column(with_mtp, "loss").front(), std::log(64.0) - 0.05);       // a trained trunk
  EXPECT_LT(column(again, "loss").front(), std::log(64.0) - 0.05);
  EXPECT_THROW(run.train("other", 1, {"run.init_from=" + (dir / "plain").string(), "model.num_layers=3"}), UserError);
}

TEST(Run, TheMovingAverageMayStartAndEndAtAResume) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  run.train("a", 1, {"train.steps=5", "optim.ema_decay=0"});
  run.train("a", 1, {"train.steps=8", "optim.ema_decay=0.9"});
  const auto rows = run.train("a", 1, {"train.steps=10", "optim.ema_decay=0"});
  EXPECT_EQ(rows.size(), 10u);
}

TEST(Run, MomentsKeepTheirDtype) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  run.train("a", 1, {"train.steps=2", "optim.moments=bf16"});
  const auto reader = checkpoint::CheckpointReader::open(dir / "a" / "checkpoints" / "step-2");
  EXPECT_EQ(reader.at("optim.v/model.norm.weight").dtype, DType::kBf16);
  EXPECT_THROW(run.train("a", 2, {"train.steps=4"}), UserError);
}

TEST(Run, StartsFromTheWeightsOfAnother) {
  const test::TempDir dir;
  const SmallRun run{dir.path(), {}};
  const auto first = column(run.train("a"), "loss");
  const auto second = column(run.train("b", 1, {"run.init_from=" + (dir / "a").string(), "train.steps=2"}), "loss");
  EXPECT_LT(second.front(), first.front() - 0.05);
}

}  // namespace
}  // namespace hadal
