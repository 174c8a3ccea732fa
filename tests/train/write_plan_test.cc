// Guards: a run leaves its forecast where the report finds it, made for the layout and threads of its last start, with the figures of
// all ranks beside it; a forecast that cannot be written stops no run.
#include "train/write_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "config/load.h"
#include "report/comparison.h"
#include "tests/support/run_program.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

TEST(WritePlan, IsOfTheLastStartAndTheReportReadsIt) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {"train.log_interval=4"}};
  run.train("run", 1, {"train.steps=5"});
  report::Run read = report::load_run(dir / "run");
  ASSERT_TRUE(read.plan.figures) << read.plan.problem;
  EXPECT_EQ(read.plan.figures->num_ranks, 1);
  EXPECT_EQ(read.column("memory_bytes_max"), nullptr);

  const auto rows = run.train("run", 4, {"train.steps=10", "parallel={pp: 2, schedule: 1f1b}"});
  read = report::load_run(dir / "run");
  ASSERT_TRUE(read.plan.figures) << read.plan.problem;
  EXPECT_EQ(read.plan.figures->num_ranks, 4);
  EXPECT_GT(read.plan.figures->waited_share, 0.1);  // the bubble of two stages at least
  EXPECT_EQ(read.last_start, 5);
  // Rows of a logging interval, and the last.
  for (const report::MetricsRow& row : rows) {
    const bool logged = row.step() == 8 || row.step() == 10;
    EXPECT_EQ(row.number("memory_bytes_max").has_value(), logged) << row.step();
    if (!logged) continue;
    EXPECT_GE(*row.number("memory_bytes_max"), *row.number("memory_bytes"));
    EXPECT_GT(*row.number("waited_share_mean"), 0);
    EXPECT_LT(*row.number("waited_share_mean"), 1);
  }
  const std::vector<report::ComparisonLine> lines = report::comparison_lines(read);
  ASSERT_EQ(lines.size(), 4u);
  for (const report::ComparisonLine& line : lines) EXPECT_NE(line.measured, "-") << line.title;
}

/// The step that is predicted for this many threads.
double step_ms(const Config& config, int threads, const test::TempDir& dir) {
  train::write_plan(config, 1, threads, dir.path());
  return report::read_plan(dir.path()).figures->step_ms;
}

TEST(WritePlan, ThreadsOfARankAreCoresOfTheMachine) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  const Config config = load_config(run.config_path(), {}).config;
  EXPECT_NEAR(step_ms(config, 1, dir) / step_ms(config, 4, dir), 4.0, 1e-6);
}

TEST(WritePlan, MemoryIsThatOfTheProgram) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  const std::string words = "train " + run.config_path().string() + " --quiet run.dir=" + (dir / "run").string() +
                            " 'data.sources=[{path: " + (dir / "tokens.h5").string() + "}]' model.vocab_size=4096 run.threads=1";
  const test::ProgramResult result = test::run_hadal(words);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const report::Run read = report::load_run(dir / "run");
  const double measured = read.column("memory_bytes")->back();
  EXPECT_NEAR(read.plan.figures->memory_bytes / measured, 1.0, 0.1) << measured << " measured";
  const test::ProgramResult report = test::run_hadal("report " + (dir / "run").string());
  EXPECT_EQ(report.exit_code, 0) << report.err;
  EXPECT_NE(report.out.find("predicted for 1 rank of CPU core"), std::string::npos) << report.out;
}

TEST(WritePlan, WhatCannotBeWrittenStopsNoRun) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {}};
  std::filesystem::create_directories(dir / "run" / "plan.json" / "in_the_way");
  EXPECT_EQ(run.train("run", 1, {"train.steps=2"}).size(), 2u);
  const report::Run read = report::load_run(dir / "run");
  EXPECT_FALSE(read.plan.figures);
  EXPECT_FALSE(read.plan.problem.empty());
}

}  // namespace
}  // namespace hadal
