// The page: self-contained, whatever names and figures the runs hold; the summary and the plot on stdout.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "report/html_page.h"
#include "report/page_data.h"
#include "report/summary.h"
#include "report/terminal_plot.h"

namespace hadal::report {
namespace {

Run made_run(std::int64_t steps) {
  Run run;
  run.name = "</script><b>";
  run.config_text = "optim:\n  lr: 1 # </script>\n";
  for (std::int64_t step = 1; step <= steps; ++step) {
    MetricsRow row;
    row.set("step", step);
    row.set("ts", 1000.0 + 0.5 * static_cast<double>(step));
    row.set("tokens", step * 2048);
    row.set("loss", step == 3 ? kMissing : 8.0 / static_cast<double>(step));
    row.set("tokens_per_s", 4096.0);
    if (step % 10 == 0) {
      row.set("val_loss", 3.0);
      row.set("val_unigram_entropy", 6.0);
      row.set("moe.layer_1.load", std::vector<double>{0.25, 0.75});
    }
    add_row(run, row);
  }
  return run;
}

TEST(PageData, is_json_and_thinned) {
  const std::vector<report::Run> runs{made_run(5000)};
  const auto data = nlohmann::json::parse(page_data(runs, {100, 7}));
  const auto& run = data.at("runs").at(0);
  EXPECT_EQ(run.at("axis").at("step").size(), 100u);
  EXPECT_EQ(run.at("axis").at("step").back(), 5000);
  EXPECT_EQ(run.at("dense").at("loss").at("y").size(), 100u);
  EXPECT_EQ(run.at("dense").at("loss").at("hi").at(0), 8.0);
  EXPECT_EQ(run.at("sparse").at("val_loss").at("y").size(), 100u);
  EXPECT_EQ(run.at("loads").at(0).at("share").size(), 7u);
  EXPECT_EQ(run.at("loads").at(0).at("share").at(0), (std::vector<double>{0.25, 0.75}));
}

TEST(PageData, short_runs_keep_every_row_and_missing_figures_are_null) {
  const std::vector<report::Run> runs{made_run(4)};
  const auto run = nlohmann::json::parse(page_data(runs, {100, 7})).at("runs").at(0);
  EXPECT_EQ(run.at("dense").at("loss").at("y").dump(), "[8,4,null,2]");
  EXPECT_FALSE(run.at("dense").at("loss").contains("hi"));
  EXPECT_TRUE(run.at("loads").empty());
}

TEST(PageData, has_a_table_of_predicted_and_measured_or_the_reason_why_not) {
  std::vector<report::Run> runs{made_run(4), made_run(4)};
  runs[0].plan.figures = Planned{.machine = "CPU core", .num_ranks = 1, .memory_bytes = 5e6, .step_ms = 250, .tokens_per_s = 2048, .waited_share = 0};
  runs[1].plan.problem = "a \"b\" </script>";
  const auto data = nlohmann::json::parse(page_data(runs, {100, 7})).at("runs");
  EXPECT_EQ(data[0]["plan"]["title"], "predicted for 1 rank of CPU core");
  EXPECT_EQ(data[0]["plan"]["rows"][2], nlohmann::json({"tokens/s (median)", "2048", "4096", "2.00"}));
  EXPECT_EQ(data[1]["plan"], nlohmann::json({{"title", "nothing predicted: a \"b\" </script>"}, {"rows", nlohmann::json::array()}}));
}

TEST(HtmlPage, loads_nothing_and_no_name_escapes_from_its_place) {
  const std::vector<report::Run> runs{made_run(50), made_run(20)};
  const std::string page = html_page(runs, "<title> & \"more\"");
  for (const char* word : {"http://", "https://", "src=", "@import", "url(//"})
    EXPECT_EQ(page.find(word), std::string::npos) << word;
  const auto count = [&](const std::string& word) {
    int times = 0;
    for (std::size_t at = page.find(word); at != std::string::npos; at = page.find(word, at + 1)) ++times;
    return times;
  };
  EXPECT_EQ(count("</script>"), 2);
  EXPECT_EQ(count("<title>"), 1);
  EXPECT_NE(page.find("&lt;title&gt; &amp; &quot;more&quot;"), std::string::npos);
}

TEST(Summary, figures) {
  const Summary summary = summarize(made_run(100));
  EXPECT_EQ(summary.last_step, 100);
  EXPECT_EQ(summary.tokens, 204800);
  EXPECT_DOUBLE_EQ(summary.val_loss, 3.0);
  EXPECT_DOUBLE_EQ(summary.entropy_share, 0.5);
  EXPECT_DOUBLE_EQ(summary.tokens_per_s, 4096.0);
  EXPECT_NEAR(summary.seconds, 49.5, 1e-9);
  EXPECT_TRUE(std::isnan(summary.max_vio));
  const std::vector<report::Run> runs{made_run(100)};
  EXPECT_NE(summary_text(runs).find("share of unigram entropy"), std::string::npos);
  EXPECT_EQ(summary_text(runs).find("MaxVio"), std::string::npos) << "a figure that no run has takes no line";
}

TEST(TerminalPlot, falling_line_in_plain_characters) {
  const std::vector<Curve> curves{{"loss", {0, 1, 2, 3}, {3, 2, kMissing, 0}, true}};
  PlotOptions options;
  options.width = 40;
  options.height = 4;
  options.unicode = false;
  const std::string text = terminal_plot(curves, options);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
  EXPECT_NE(text.find("|*****\n       2 +     ******\n"), std::string::npos) << text;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 40u);
    begin = end + 1;
  }
}

TEST(TerminalPlot, nothing_finite_gives_no_plot) {
  const std::vector<Curve> curves{{"loss", {0, 1}, {kMissing, kMissing}, true}};
  EXPECT_EQ(terminal_plot(curves, {}), "");
  EXPECT_EQ(axis_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
}

}  // namespace
}  // namespace hadal::report
