// Guards: a run that diverges skips its updates on every rank and ends with 87; a full disk costs checkpoints, not the steps between,
// and ends the run with 74 after three; status.json tells either;
// ids outside the model are refused as input.
#include <gtest/gtest.h>

#include <filesystem>

#include "comm/local/local_group.h"
#include "config/load.h"
#include "core/file.h"
#include "tests/support/run_program.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"
#include "train/micro_batch.h"
#include "train/trainer.h"

namespace hadal {
namespace {

std::vector<std::string> overrides(const test::TempDir& dir, std::vector<std::string> more) {
  more.push_back("run.dir=" + (dir / "run").string());
  more.push_back("data.sources=[{path: " + (dir / "tokens.h5").string() + "}]");
  return more;
}

TEST(Trouble, DivergenceIsSkippedAndThenEndsTheRun) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  const auto loaded = load_config(run.config_path(), overrides(dir, {"precision.compute=f32", "optim.lr=1000", "optim.weight_decay=10", "optim.schedule.warmup_steps=0"}));
  std::vector<int> codes(2);
  comm::run_local_group(2, [&](comm::Communicator& world) { codes[static_cast<std::size_t>(world.rank())] = train::Trainer(loaded, world, true).run(); });
  EXPECT_EQ(codes, (std::vector<int>{87, 87}));
  const std::string text = read_file(dir / "run" / "metrics.jsonl");
  EXPECT_NE(text.find("\"skipped\":1"), std::string::npos);
  EXPECT_NE(read_file(dir / "run" / "status.json").find("\"state\":\"failed\""), std::string::npos);
  EXPECT_NE(read_file(dir / "run" / "status.json").find("\"exit_code\":87"), std::string::npos);
  EXPECT_LE(test::read_metrics(dir / "run").size(), 12u);
}

TEST(Trouble, IdsOutsideTheModelAreTheUsersToFix) {
  const Shape shape{1, 3};
  data::Batch batch{Tensor::zeros(shape, DType::kI32), Tensor::zeros(shape, DType::kI32), Tensor::zeros(shape, DType::kU8),
                    Tensor::zeros(shape, DType::kI32), Tensor::zeros(shape, DType::kI32)};
  batch.targets.as<std::int32_t>()[2] = 7;
  EXPECT_NO_THROW(train::check_ids(batch, 8));
  EXPECT_THROW(train::check_ids(batch, 7), UserError);
  batch.targets.as<std::int32_t>()[2] = -1;
  EXPECT_THROW(train::check_ids(batch, 8), UserError);
}

TEST(Trouble, AFullDiskCostsCheckpointsNotSteps) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  std::string words = "train " + run.config_path().string() + " --quiet";
  for (const std::string& word : overrides(dir, {"checkpoint.interval=5"})) words += " '" + word + "'";
  // No file may grow above 64 KiB: metrics fit, a shard does not.
  const test::ProgramResult result = test::run_hadal(words, "ulimit -f 128; trap '' XFSZ;");
  EXPECT_EQ(result.exit_code, 74) << result.err;
  EXPECT_EQ(test::read_metrics(dir / "run").size(), 15u) << result.err;
  EXPECT_NE(result.err.find("step 5: no checkpoint"), std::string::npos) << result.err;
  EXPECT_TRUE(std::filesystem::is_empty(dir / "run" / "checkpoints"));
  EXPECT_NE(read_file(dir / "run" / "status.json").find("\"exit_code\":74"), std::string::npos);
}

}  // namespace
}  // namespace hadal
