// What a killed, resumed or damaged metrics.jsonl becomes.
#include "report/run_data.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/error.h"
#include "tests/support/temp_dir.h"

namespace hadal::report {
namespace {

TEST(MetricsRow, json_and_back) {
  MetricsRow row;
  row.set("step", std::int64_t{7});
  row.set("loss", 0.1);
  row.set("grad_norm", -std::numeric_limits<double>::infinity());
  row.set("note", std::string("a \"b\"\n"));
  row.set("moe.layer_1.load", std::vector<double>{0.5, std::nan("")});
  row.set("loss", 0.25);
  const std::string text = row.json();
  EXPECT_EQ(text, R"({"step":7,"loss":0.25,"grad_norm":"-Infinity","note":"a \"b\"\n","moe.layer_1.load":[0.5,"NaN"]})");
  EXPECT_EQ(row.num_non_finite(), 2);
  const auto back = MetricsRow::parse(text);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->json(), text);
  EXPECT_EQ(back->step(), 7);
  EXPECT_FALSE(MetricsRow::parse("{\"step\":"));
  EXPECT_FALSE(MetricsRow::parse("[1,2]"));
}

TEST(RunData, torn_last_line_and_garbage_are_left_out) {
  const test::TempDir dir;
  std::ofstream(dir / "metrics.jsonl") << "{\"step\":1,\"loss\":3}\nnot json\n{\"step\":2,\"loss\":\"NaN\"}\n\n{\"step\":3,\"lo";
  const report::Run run = load_run(dir.path());
  EXPECT_EQ(run.steps, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(run.num_bad_lines, 1);
  EXPECT_EQ(run.num_non_finite, 1);
  EXPECT_TRUE(std::isnan((*run.column("loss"))[1]));
}

TEST(RunData, a_resume_takes_back_later_steps) {
  const test::TempDir dir;
  std::ofstream(dir / "metrics.jsonl")
      << "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2,\"moe.layer_1.load\":[1,0]}\n{\"step\":3,\"loss\":1}\n"
         "{\"step\":1,\"event\":\"resume\"}\n{\"step\":2,\"loss\":2.5}\n";
  const report::Run run = load_run(dir / "metrics.jsonl");
  EXPECT_EQ(run.steps, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(*run.column("loss"), (std::vector<double>{3, 2.5}));
  EXPECT_EQ(run.num_resumes, 1);
  EXPECT_EQ(run.num_undone, 2);
  EXPECT_TRUE(run.arrays.at("moe.layer_1.load").empty());
}

TEST(RunData, rows_of_one_step_are_joined_and_keys_may_come_and_go) {
  const test::TempDir dir;
  std::ofstream(dir / "metrics.jsonl")
      << "{\"step\":1,\"loss\":3}\n{\"step\":2,\"lr\":1}\n{\"step\":2,\"val_loss\":4}\n{\"step\":5,\"loss\":2}\n";
  const report::Run run = load_run(dir.path());
  EXPECT_EQ(run.steps, (std::vector<std::int64_t>{1, 2, 5}));
  EXPECT_EQ((*run.column("lr"))[1], 1);
  EXPECT_EQ((*run.column("val_loss"))[1], 4);
  EXPECT_TRUE(std::isnan((*run.column("loss"))[1]));
  EXPECT_EQ((*run.column("lr")).size(), 3u);
}

TEST(RunData, the_name_comes_from_the_configuration) {
  const test::TempDir dir;
  std::ofstream(dir / "metrics.jsonl") << "{\"step\":1,\"loss\":3}\n";
  std::ofstream(dir / "config.yaml") << "run:\n  dir: a\n  name: \"my run\"\nmodel:\n  name: other\n";
  EXPECT_EQ(load_run(dir.path()).name, "my run");
  std::ofstream(dir / "config.yaml") << "run:\n  dir: a\nmodel:\n  name: other\n";
  EXPECT_EQ(load_run(dir.path()).name, dir.path().filename().string());
}

TEST(RunData, nothing_to_read_is_refused) {
  const test::TempDir dir;
  EXPECT_THROW(load_run(dir.path()), UserError);
  std::ofstream(dir / "metrics.jsonl") << "{\"step\":";
  EXPECT_THROW(load_run(dir.path()), UserError);
}

}  // namespace
}  // namespace hadal::report
