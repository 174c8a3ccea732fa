#include "report/summary.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "report/figures.h"

namespace hadal::report {
namespace {

constexpr double kTail = 0.05;

double last_of(const std::vector<double>& values) { return values.empty() ? kMissing : values.back(); }

double tail_mean(const std::vector<double>& values) {
  if (values.empty()) return kMissing;
  const auto count = std::max<std::size_t>(1, static_cast<std::size_t>(kTail * static_cast<double>(values.size())));
  double sum = 0.0;
  for (std::size_t i = values.size() - count; i < values.size(); ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  return fmt::format("{}h {:02}m", whole / 3600, whole % 3600 / 60);
}

}  // namespace

std::vector<double> smoothed(std::span<const double> values, double keep) {
  std::vector<double> means;
  means.reserve(values.size());
  double sum = 0.0;
  double weight = 0.0;
  for (const double value : values) {
    if (std::isfinite(value)) {
      sum = keep * sum + value;
      weight = keep * weight + 1.0;
    }
    means.push_back(weight > 0.0 ? sum / weight : kMissing);
  }
  return means;
}

Summary summarize(const Run& run) {
  Summary summary;
  summary.last_step = run.steps.empty() ? 0 : run.steps.back();
  summary.tokens = last_of(finite_values(run, "tokens"));
  const std::vector<double> seconds = run.active_seconds();
  if (!seconds.empty() && seconds.back() > 0.0) summary.seconds = seconds.back();
  summary.loss = tail_mean(finite_values(run, "loss"));
  summary.mtp_loss = tail_mean(finite_values(run, "mtp_loss"));
  const std::vector<double> validation = finite_values(run, "val_loss");
  summary.val_loss = last_of(validation);
  if (!validation.empty()) summary.best_val_loss = *std::min_element(validation.begin(), validation.end());
  summary.bits_per_byte = last_of(finite_values(run, "val_bits_per_byte"));
  const double entropy = last_of(finite_values(run, "val_unigram_entropy"));
  if (entropy > 0.0) summary.entropy_share = summary.val_loss / entropy;
  summary.tokens_per_s = median(finite_values(run, "tokens_per_s"));
  summary.peak_share = median(finite_values(run, "peak_share"));
  summary.max_vio = tail_mean(finite_values(run, "max_vio"));
  const std::vector<double> memory = finite_values(run, "memory_bytes");
  if (!memory.empty()) summary.memory_bytes = *std::max_element(memory.begin(), memory.end());
  return summary;
}

std::vector<SummaryLine> summary_lines(std::span<const Run> runs) {
  std::vector<Summary> summaries;
  for (const Run& run : runs) summaries.push_back(summarize(run));
  std::vector<SummaryLine> lines;
  const auto add = [&](std::string title, const std::function<double(const Summary&)>& figure,
                       const std::function<std::string(double)>& text) {
    SummaryLine line{std::move(title), {}};
    bool any = false;
    for (const Summary& summary : summaries) {
      const double value = figure(summary);
      any = any || std::isfinite(value);
      line.cells.push_back(std::isfinite(value) ? text(value) : "-");
    }
    if (any) lines.push_back(std::move(line));
  };
  const auto four = [](double v) { return fmt::format("{:.4f}", v); };
  const auto percent = [](double v) { return fmt::format("{:.1f} %", 100 * v); };
  add(
      "steps", [](const Summary& s) { return static_cast<double>(s.last_step); },
      [](double v) { return fmt::format("{:.0f}", v); });
  add(
      "tokens", [](const Summary& s) { return s.tokens; }, [](double v) { return scaled_text(v); });
  add(
      "training time", [](const Summary& s) { return s.seconds; }, duration);
  add(
      "train loss (last 5 %)", [](const Summary& s) { return s.loss; }, four);
  add(
      "MTP loss (last 5 %)", [](const Summary& s) { return s.mtp_loss; }, four);
  add(
      "validation loss", [](const Summary& s) { return s.val_loss; }, four);
  add(
      "best validation loss", [](const Summary& s) { return s.best_val_loss; }, four);
  add(
      "share of unigram entropy", [](const Summary& s) { return s.entropy_share; }, percent);
  add(
      "bits per byte", [](const Summary& s) { return s.bits_per_byte; }, four);
  add(
      "tokens/s (median)", [](const Summary& s) { return s.tokens_per_s; }, [](double v) { return scaled_text(v); });
  add(
      "share of measured peak", [](const Summary& s) { return s.peak_share; }, percent);
  add(
      "MaxVio (last 5 %)", [](const Summary& s) { return s.max_vio; }, [](double v) { return fmt::format("{:.3f}", v); });
  add(
      "memory", [](const Summary& s) { return s.memory_bytes; }, [](double v) { return scaled_text(v, "B"); });
  SummaryLine events{"resumes / undone rows", {}};
  SummaryLine damage{"non-finite / unreadable", {}};
  SummaryLine states{"state", {}};
  bool any_event = false, any_damage = false, any_state = false;
  for (const Run& run : runs) {
    any_event = any_event || run.num_resumes + run.num_undone > 0;
    any_damage = any_damage || run.num_non_finite + run.num_bad_lines > 0;
    any_state = any_state || !run.state.empty();
    events.cells.push_back(fmt::format("{} / {}", run.num_resumes, run.num_undone));
    damage.cells.push_back(fmt::format("{} / {}", run.num_non_finite, run.num_bad_lines));
    states.cells.push_back(run.state.empty() ? "-" : run.state);
  }
  if (any_event) lines.push_back(std::move(events));
  if (any_damage) lines.push_back(std::move(damage));
  if (any_state) lines.push_back(std::move(states));
  return lines;
}

std::string summary_text(std::span<const Run> runs) {
  std::vector<SummaryLine> lines = summary_lines(runs);
  SummaryLine head{"", {}};
  for (const Run& run : runs) head.cells.push_back(run.name);
  lines.insert(lines.begin(), std::move(head));
  std::vector<std::vector<std::string>> rows;
  for (SummaryLine& line : lines) {
    rows.emplace_back(std::move(line.cells));
    rows.back().insert(rows.back().begin(), std::move(line.title));
  }
  return aligned(rows);
}

}  // namespace hadal::report
