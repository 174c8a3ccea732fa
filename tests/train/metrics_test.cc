// metrics.jsonl: rows as written, torn tails, resume; the tags in TensorBoard.
#include "train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::train {
namespace {

report::MetricsRow row_of(std::int64_t step, double loss) {
  report::MetricsRow row;
  row.set("ts", 1700000000.5);
  row.set("step", step);
  row.set("loss", loss);
  return row;
}

TEST(MetricsWriter, rows_are_flat_json_lines) {
  const test::TempDir dir;
  MetricsWriter writer(dir.path(), std::nullopt, "run: {}\n");
  report::MetricsRow row = row_of(1, 2.5);
  row.set("moe.layer_1.load", std::vector<double>{0.25, 0.75});
  writer.write(row);
  writer.write(row_of(2, std::numeric_limits<double>::quiet_NaN()));
  writer.sync();
  EXPECT_EQ(read_file(dir / "metrics.jsonl"),
            "{\"ts\":1700000000.5,\"step\":1,\"loss\":2.5,\"moe.layer_1.load\":[0.25,0.75]}\n"
            "{\"ts\":1700000000.5,\"step\":2,\"loss\":\"NaN\"}\n");
  EXPECT_EQ(writer.num_non_finite(), 1);
}

TEST(MetricsWriter, resume_cuts_a_torn_row_and_says_where_it_starts) {
  const test::TempDir dir;
  {
    MetricsWriter writer(dir.path(), std::nullopt, "");
    writer.write(row_of(1, 2.5));
    writer.write(row_of(2, 2.4));
  }
  std::ofstream(dir / "metrics.jsonl", std::ios::app) << "{\"ts\":17";
  MetricsWriter writer(dir.path(), 1, "");
  writer.write(row_of(2, 2.3));
  const std::string text = read_file(dir / "metrics.jsonl");
  EXPECT_EQ(text.find("{\"ts\":17{"), std::string::npos);
  EXPECT_NE(text.find("\"step\":1,\"event\":\"resume\"}\n{\"ts\":1700000000.5,\"step\":2,\"loss\":2.3}\n"), std::string::npos)
      << text;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "tensorboard")) files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, 2) << "a new event file per start";
}

TEST(MetricsWriter, a_file_that_is_one_torn_row_becomes_empty) {
  const test::TempDir dir;
  std::ofstream(dir / "metrics.jsonl") << std::string(10000, 'x');
  MetricsWriter writer(dir.path(), std::nullopt, "");
  writer.write(row_of(1, 2.5));
  EXPECT_EQ(read_file(dir / "metrics.jsonl"), "{\"ts\":1700000000.5,\"step\":1,\"loss\":2.5}\n");
}

TEST(MetricsWriter, tags) {
  EXPECT_EQ(tensorboard_tag("loss"), "train/loss");
  EXPECT_EQ(tensorboard_tag("val_bits_per_byte"), "val/bits_per_byte");
  EXPECT_EQ(tensorboard_tag("tokens_per_s"), "perf/tokens_per_s");
  EXPECT_EQ(tensorboard_tag("waited_share_mean"), "perf/waited_share_mean");
  EXPECT_EQ(tensorboard_tag("max_vio"), "moe/max_vio");
  EXPECT_EQ(tensorboard_tag("moe.layer_1.entropy"), "moe/layer_1.entropy");
  EXPECT_EQ(tensorboard_tag("step"), "");
}

}  // namespace
}  // namespace hadal::train
