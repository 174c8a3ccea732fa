// Progress: the fields of a line, durations, and that a live line stays within the terminal.
#include "train/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace hadal::train {
namespace {

report::MetricsRow full_row() {
  report::MetricsRow row;
  row.set("step", std::int64_t{120});
  row.set("loss", 3.14159);
  row.set("mtp_loss", 3.3);
  row.set("lr", 4e-3);
  row.set("grad_norm", 0.814);
  row.set("tokens_per_s", 14210.0);
  row.set("peak_share", 0.61);
  row.set("max_vio", 0.123);
  return row;
}

/// What Progress prints for steps 1 to `steps`.
std::string printed(const ProgressOptions& options, std::int64_t steps) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    Progress progress(options, out);
    for (std::int64_t step = 1; step <= steps; ++step) {
      report::MetricsRow row = full_row();
      row.set("step", step);
      progress.update(row, true);
    }
  }
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

TEST(Progress, line) {
  EXPECT_EQ(
      progress_line(full_row(), 2000, 252),
      "step  120/2000 | loss 3.1416 | mtp 3.3000 | lr 4.00e-03 | gnorm 0.81 | 14.2k tok/s | peak 61% | maxvio 0.12 | eta 4m12s");
  report::MetricsRow bare;
  bare.set("step", std::int64_t{3});
  EXPECT_EQ(progress_line(bare, 10, -1), "step  3/10");
  EXPECT_EQ(progress_line(full_row(), 2000, 252, 60), "step  120/2000 | loss 3.1416 | 14.2k tok/s | eta 4m12s");
}

TEST(Progress, durations) {
  EXPECT_EQ(duration_text(0.84), "0.8s");
  EXPECT_EQ(duration_text(42), "42s");
  EXPECT_EQ(duration_text(3599.9), "1h00m");
  EXPECT_EQ(duration_text(190000), "2d04h");
}

TEST(Progress, plain_lines_are_few_and_the_last_step_is_there) {
  const std::string text = printed({ProgressStyle::kPlain, 0, false, 500}, 500);
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_NE(text.find("step   1/500"), std::string::npos);
  EXPECT_NE(text.find("step 500/500"), std::string::npos);
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 3);
}

TEST(Progress, live_line_stays_within_the_terminal) {
  const std::string text = printed({ProgressStyle::kLive, 40, false, 5}, 5);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  for (std::size_t at = text.find('\r'); at != std::string::npos; at = text.find('\r', at + 1)) {
    const std::size_t end = std::min(text.find('\r', at + 1), text.size() - 1);
    EXPECT_LE(end - at - std::string("\r\x1b[K").size(), 39u);
  }
}

TEST(Progress, none_is_silent) { EXPECT_EQ(printed({ProgressStyle::kNone, 0, false, 5}, 5), ""); }

}  // namespace
}  // namespace hadal::train
