// Guards: a run whose experts' tokens travel in bounded room is the run with exact counts, bit by bit: figures, checkpoint, validation; steps
// that needed more room were done again, and nothing came of the attempts.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/store.h"
#include "core/error.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

using test::column;

std::vector<std::string> hashes(const std::filesystem::path& run) {
  std::vector<std::string> all;
  const auto reader = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(run));
  for (const checkpoint::StoredTensor& tensor : reader.tensors()) all.push_back(fmt::format("{} {}", tensor.name, tensor.hash.hex()));
  return all;
}

TEST(ExpertRoom, TrainsAsWithExactCounts) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {"data.validation_fraction=0.1", "train.eval_interval=10", "balance.bias_update_speed=0.1"}};
  const std::vector<std::vector<std::string>> layouts{
      {"parallel.ep=4"},
      {"parallel.ep=2", "parallel.etp=2"},
      {"parallel.ep=4", "parallel.pp=2", "parallel.tp=2", "parallel.schedule=dualpipe_v", "train.micro_batch=1"}};
  for (const std::vector<std::string>& layout : layouts) {
    SCOPED_TRACE(testing::PrintToString(layout));
    const int ranks = layout.size() > 2 ? 8 : 4;
    std::vector<std::string> room = layout;
    room.push_back("parallel.expert_capacity=1");
    const std::string name = fmt::format("{} {}", layout.size(), layout.back());
    testing::internal::CaptureStderr();
    const auto rows = run.train("room " + name, ranks, room);
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("the step is done again with room for 2 times an even load"), std::string::npos) << log;
    const auto exact = run.train("exact " + name, ranks, layout);
    ASSERT_EQ(rows.size(), exact.size());
    for (const char* key : {"loss", "mtp_loss", "balance_loss", "grad_norm", "max_vio", "skipped", "val_loss", "val_mtp_acceptance"}) {
      EXPECT_EQ(column(rows, key), column(exact, key)) << key;
    }
    EXPECT_EQ(hashes(dir.path() / ("room " + name)), hashes(dir.path() / ("exact " + name)));
  }
}

TEST(ExpertRoom, TellsWhichCapacityIsNone) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  const auto refusal = [&](const std::vector<std::string>& settings) -> std::string {
    try {
      run.train("refused", 2, settings);
      return "";
    } catch (const UserError& error) {
      return error.what();
    }
  };
  EXPECT_NE(refusal({"parallel.ep=2", "parallel.expert_capacity=0.5"}).find("parallel.expert_capacity 0.5: room for less than an even load"),
            std::string::npos);
  EXPECT_NE(refusal({"parallel.expert_capacity=1.5"}).find("parallel.expert_capacity 1.5 is for tokens that travel"), std::string::npos);
}

}  // namespace
}  // namespace hadal
