#include "report/comparison.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "report/figures.h"

namespace hadal::report {
namespace {

std::string ms_text(double value) { return fmt::format("{:.{}f} ms", value, value < 100 ? 2 : 0); }
std::string percent_text(double value) { return fmt::format("{:.1f} %", 100 * value); }
std::string bytes_text(double value) { return scaled_text(value, "B"); }
std::string rate_text(double value) { return scaled_text(value); }

ComparisonLine line_of(std::string title, double predicted, double measured, std::string (*text)(double)) {
  const bool known = std::isfinite(measured);
  return {.title = std::move(title),
          .predicted = text(predicted),
          .measured = known ? text(measured) : "-",
          .ratio = known && predicted > 0 ? fmt::format("{:.2f}", measured / predicted) : "-"};
}

}  // namespace

std::vector<ComparisonLine> comparison_lines(const Run& run) {
  if (!run.plan.figures) return {};
  const Planned& plan = *run.plan.figures;
  const auto first =
      static_cast<std::size_t>(std::upper_bound(run.steps.begin(), run.steps.end(), run.last_start) - run.steps.begin());
  const auto values = [&](const char* key) { return finite_values(run, key, first); };
  // A run of one rank has its own figure alone.
  const std::vector<double> most = values("memory_bytes_max");
  std::vector<ComparisonLine> lines{
      line_of("memory of the rank that has most", plan.memory_bytes, largest(most.empty() ? values("memory_bytes") : most), bytes_text),
      line_of("step (median)", plan.step_ms, median(values("step_ms")), ms_text),
      line_of("tokens/s (median)", plan.tokens_per_s, median(values("tokens_per_s")), rate_text)};
  if (plan.num_ranks > 1) {
    lines.push_back(line_of("waits for other ranks (median)", plan.waited_share, median(values("waited_share_mean")), percent_text));
  }
  return lines;
}

std::string comparison_title(const Run& run) {
  if (!run.plan.figures) return "nothing predicted: " + run.plan.problem;
  const Planned& plan = *run.plan.figures;
  return fmt::format("predicted for {} {} of {}", plan.num_ranks, plan.num_ranks == 1 ? "rank" : "ranks", plan.machine);
}

std::string comparison_text(std::span<const Run> runs) {
  std::string text;
  for (const Run& run : runs) {
    const std::string name = runs.size() > 1 ? run.name + ": " : "";
    const std::vector<ComparisonLine> lines = comparison_lines(run);
    if (lines.empty()) {
      text += name + comparison_title(run) + "\n";
      continue;
    }
    std::vector<std::vector<std::string>> rows{{name + comparison_title(run), "predicted", "measured", "ratio"}};
    for (const ComparisonLine& line : lines) rows.push_back({line.title, line.predicted, line.measured, line.ratio});
    text += aligned(rows);
  }
  return text;
}

}  // namespace hadal::report
