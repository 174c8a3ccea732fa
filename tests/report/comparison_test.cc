// Guards: predicted against measured: the right columns of the right rows; a plan.json that is missing, damaged or hostile is told in
// one line and costs nothing else.
#include "report/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace hadal::report {
namespace {

constexpr const char* kPlan =
    R"({"machine": "CPU core", "num_ranks": 2, "step_ms": 50.0, "tokens_per_s_per_gpu": 1000, "waited_share": 0.125,
        "peak_bytes": [1000000, 2000000], "ranks": [{"pp_rank": 0, "stage": "layers 0-3"}]})";

void write_run(const test::TempDir& dir, const std::string& plan) {
  std::ofstream(dir / "metrics.jsonl")
      << R"({"step":1,"step_ms":900,"tokens_per_s":100,"memory_bytes":9,"memory_bytes_max":9000000,"waited_share":0.9,"waited_share_mean":0.9})"
      << "\n"
      << R"({"step":2,"step_ms":900,"tokens_per_s":100})" << "\n"
      << R"({"step":1,"event":"resume"})" << "\n"
      << R"({"step":2,"step_ms":60,"tokens_per_s":1500,"memory_bytes":1,"memory_bytes_max":1900000,"waited_share":0,"waited_share_mean":0.25})"
      << "\n"
      << R"({"step":3,"step_ms":40,"tokens_per_s":2500,"memory_bytes":1,"waited_share":0})" << "\n"
      << R"({"step":4,"step_ms":50,"tokens_per_s":2200,"memory_bytes":1,"memory_bytes_max":2100000,"waited_share":0,"waited_share_mean":0.25})"
      << "\n";
  std::ofstream(dir / "plan.json", std::ios::binary) << plan;
}

/// What the report says when plan.json is `plan`.
std::string problem_of(const std::string& plan) {
  const test::TempDir dir;
  write_run(dir, plan);
  const report::Run run = load_run(dir.path());
  EXPECT_TRUE(comparison_lines(run).empty());
  const std::string text = comparison_text(std::span(&run, 1));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_TRUE(text.ends_with('\n'));
  EXPECT_TRUE(std::ranges::none_of(text.substr(0, text.size() - 1), [](unsigned char c) { return c < 0x20; })) << text;
  return text;
}

TEST(Comparison, holds_the_rows_since_the_last_start_against_the_plan) {
  const test::TempDir dir;
  write_run(dir, kPlan);
  const report::Run run = load_run(dir.path());
  EXPECT_EQ(comparison_text(std::span(&run, 1)),
            "predicted for 2 ranks of CPU core  predicted  measured  ratio\n"
            "memory of the rank that has most     2.00 MB   2.10 MB   1.05\n"
            "step (median)                       50.00 ms  50.00 ms   1.00\n"
            "tokens/s (median)                       2000      2200   1.10\n"
            "waits for other ranks (median)        12.5 %    25.0 %   2.00\n");
}

TEST(Comparison, one_rank_has_its_own_memory_and_waits_for_nobody) {
  const test::TempDir dir;
  write_run(dir, R"({"machine": "CPU core", "num_ranks": 1, "step_ms": 50, "tokens_per_s_per_gpu": 0, "waited_share": 0, "peak_bytes": [1]})");
  std::ofstream(dir / "metrics.jsonl") << "{\"step\":1,\"memory_bytes\":2}\n";
  const report::Run run = load_run(dir.path());
  EXPECT_EQ(comparison_text(std::span(&run, 1)),
            "predicted for 1 rank of CPU core  predicted  measured  ratio\n"
            "memory of the rank that has most        1 B       2 B   2.00\n"
            "step (median)                      50.00 ms         -      -\n"
            "tokens/s (median)                         0         -      -\n");
}

TEST(Comparison, several_runs_are_told_apart) {
  const test::TempDir dir;
  write_run(dir, kPlan);
  std::vector<report::Run> runs{load_run(dir.path()), load_run(dir.path())};
  runs[0].name = "a";
  runs[1].name = "b";
  runs[1].plan = {std::nullopt, "why"};
  const std::string text = comparison_text(runs);
  EXPECT_TRUE(text.starts_with("a: predicted for 2 ranks"));
  EXPECT_TRUE(text.ends_with("\nb: nothing predicted: why\n"));
}

TEST(Comparison, a_missing_plan_is_told) {
  const test::TempDir dir;
  write_run(dir, kPlan);
  std::filesystem::remove(dir / "plan.json");
  const report::Run run = load_run(dir.path());
  EXPECT_EQ(comparison_text(std::span(&run, 1)), "nothing predicted: " + (dir / "plan.json").string() +
                                                     " is not there: the run wrote no forecast when it started\n");
  std::filesystem::create_directory(dir / "plan.json");
  EXPECT_NE(comparison_title(load_run(dir.path())).find("plan.json"), std::string::npos);
}

TEST(Comparison, a_damaged_plan_is_told_by_the_key) {
  const std::string good = kPlan;
  EXPECT_NE(problem_of(good.substr(0, good.size() / 2)).find("not valid JSON"), std::string::npos);
  EXPECT_NE(problem_of("").find("not valid JSON"), std::string::npos);
  EXPECT_NE(problem_of("[1]").find("no object"), std::string::npos);
  EXPECT_NE(problem_of("{}").find("has no machine"), std::string::npos);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string plan = good;
    plan.replace(plan.find(from), from.size(), to);
    return problem_of(plan);
  };
  EXPECT_NE(with("\"num_ranks\": 2", "\"num_ranks\": 0").find("num_ranks"), std::string::npos);
  EXPECT_NE(with("\"num_ranks\": 2", "\"num_ranks\": 1e300").find("num_ranks"), std::string::npos);
  EXPECT_NE(with("50.0", "\"50\"").find("step_ms"), std::string::npos);
  EXPECT_NE(with("50.0", "-1").find("step_ms"), std::string::npos);
  EXPECT_NE(with("1000,", "null,").find("tokens_per_s_per_gpu"), std::string::npos);
  EXPECT_NE(with("0.125", "1.5").find("waited_share"), std::string::npos);
  EXPECT_NE(with("[1000000, 2000000]", "[]").find("peak_bytes"), std::string::npos);
  EXPECT_NE(with("2000000", "{}").find("peak_bytes"), std::string::npos);
  EXPECT_NE(with("50.0", "1e999").find("plan.json"), std::string::npos);
}

TEST(Comparison, a_hostile_plan_reaches_neither_the_terminal_nor_the_memory) {
  std::string plan = kPlan;
  plan.replace(plan.find("CPU core"), 8, R"(\u001b[2J\n)");
  EXPECT_NE(problem_of(plan).find("machine is no name"), std::string::npos);
  EXPECT_NE(problem_of(R"({"\u001b[2J\n": 1, "\u001b[2J\n": 2})").find("twice"), std::string::npos);
  EXPECT_NE(problem_of(std::string(100000, '[')).find("nested deeper"), std::string::npos);
  problem_of(std::string("\0\x1b\n", 3));
  problem_of(std::string(17 << 20, ' '));
}

}  // namespace
}  // namespace hadal::report
