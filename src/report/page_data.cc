#include "report/page_data.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "report/comparison.h"
#include "report/summary.h"

namespace hadal::report {
namespace {

/// A column that has a value in at most this share of the rows is a list of points of its own.
constexpr double kSparseShare = 0.2;

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.6g}", value) : std::string("null"); }

std::string list(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) text += (text.size() > 1 ? "," : "") + number(value);
  return text + "]";
}

/// Integers keep all their digits.
std::string whole_list(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) {
    text += (text.size() > 1 ? "," : "") + (std::isfinite(value) ? fmt::format("{:.0f}", value) : std::string("null"));
  }
  return text + "]";
}

/// The three horizontal axes of one run, by row.
struct Axes {
  std::vector<double> step;
  std::vector<double> tokens;
  std::vector<double> hours;

  explicit Axes(const Run& run) : step(run.steps.begin(), run.steps.end()), hours(run.active_seconds()) {
    for (double& hour : hours) hour /= 3600.0;
    const std::vector<double>* column = run.column("tokens");
    tokens = column == nullptr ? std::vector<double>(step.size(), kMissing) : *column;
  }

  std::string at(const std::vector<std::size_t>& rows) const {
    const auto pick = [&](const std::vector<double>& from) {
      std::vector<double> picked;
      for (const std::size_t row : rows) picked.push_back(from[row]);
      return picked;
    };
    return fmt::format(R"({{"step":{},"tokens":{},"hours":{}}})", whole_list(pick(step)), whole_list(pick(tokens)),
                       list(pick(hours)));
  }
};

/// Rows [edges[i], edges[i + 1]) form bucket i.
std::vector<std::size_t> bucket_edges(std::size_t num_rows, std::size_t most) {
  const std::size_t count = std::min(num_rows, most);
  std::vector<std::size_t> edges;
  for (std::size_t i = 0; i <= count; ++i) edges.push_back(i * num_rows / std::max<std::size_t>(count, 1));
  return edges;
}

std::string dense_curve(const std::vector<double>& values, const std::vector<std::size_t>& edges) {
  std::vector<double> mean, low, high;
  for (std::size_t bucket = 0; bucket + 1 < edges.size(); ++bucket) {
    double sum = 0.0, least = kMissing, most = kMissing;
    int count = 0;
    for (std::size_t row = edges[bucket]; row < edges[bucket + 1]; ++row) {
      if (!std::isfinite(values[row])) continue;
      least = count == 0 ? values[row] : std::min(least, values[row]);
      most = count == 0 ? values[row] : std::max(most, values[row]);
      sum += values[row];
      ++count;
    }
    mean.push_back(count == 0 ? kMissing : sum / count);
    low.push_back(least);
    high.push_back(most);
  }
  const bool thinned = edges.back() + 1 > edges.size();
  std::string text = R"({"y":)" + list(mean);
  if (thinned) text += R"(,"lo":)" + list(low) + R"(,"hi":)" + list(high);
  return text + "}";
}

std::string sparse_points(const std::vector<double>& values, const Axes& axes, std::size_t most) {
  std::vector<std::size_t> rows;
  for (std::size_t row = 0; row < values.size(); ++row) {
    if (std::isfinite(values[row])) rows.push_back(row);
  }
  const std::vector<std::size_t> edges = bucket_edges(rows.size(), most);
  std::vector<std::size_t> kept;
  std::vector<double> points;
  for (std::size_t bucket = 0; bucket + 1 < edges.size(); ++bucket) {
    kept.push_back(rows[edges[bucket + 1] - 1]);
    points.push_back(values[kept.back()]);
  }
  return fmt::format(R"({{"at":{},"y":{}}})", axes.at(kept), list(points));
}

std::string load_map(const std::string& name, const std::vector<Run::ArrayAt>& entries, const Axes& axes, std::size_t most) {
  std::size_t experts = 0;
  for (const Run::ArrayAt& entry : entries) experts = std::max(experts, entry.values.size());
  const std::vector<std::size_t> edges = bucket_edges(entries.size(), most);
  std::vector<std::size_t> rows;
  std::string shares = "[";
  for (std::size_t bucket = 0; bucket + 1 < edges.size(); ++bucket) {
    std::vector<double> mean(experts, 0.0);
    for (std::size_t i = edges[bucket]; i < edges[bucket + 1]; ++i) {
      for (std::size_t e = 0; e < entries[i].values.size(); ++e) mean[e] += static_cast<double>(entries[i].values[e]);
    }
    double sum = 0.0;
    for (const double value : mean) sum += value;
    for (double& value : mean) value = sum > 0.0 ? value / sum : kMissing;
    shares += (shares.size() > 1 ? "," : "") + list(mean);
    rows.push_back(entries[edges[bucket + 1] - 1].row);
  }
  return fmt::format(R"({{"name":{},"experts":{},"at":{},"share":{}]}})", json_string(name), experts, axes.at(rows), shares);
}

std::string plan_data(const Run& run) {
  std::string rows;
  for (const ComparisonLine& line : comparison_lines(run)) {
    rows += fmt::format("{}[{},{},{},{}]", rows.empty() ? "" : ",", json_string(line.title), json_string(line.predicted),
                        json_string(line.measured), json_string(line.ratio));
  }
  return fmt::format(R"({{"title":{},"rows":[{}]}})", json_string(comparison_title(run)), rows);
}

std::string run_data(const Run& run, const PageLimits& limits) {
  const Axes axes(run);
  const std::vector<std::size_t> edges = bucket_edges(run.steps.size(), limits.curve_points);
  std::vector<std::size_t> ends;
  for (std::size_t bucket = 0; bucket + 1 < edges.size(); ++bucket) ends.push_back(edges[bucket + 1] - 1);
  std::string dense, sparse, loads;
  for (const auto& [key, values] : run.columns) {
    if (key == "ts" || key == "tokens" || key == "samples" || key == "step") continue;
    const auto count = std::count_if(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
    if (count == 0) continue;
    const bool few = static_cast<double>(count) <= kSparseShare * static_cast<double>(values.size()) || key.starts_with("val_");
    std::string& into = few ? sparse : dense;
    into += (into.empty() ? "" : ",") + json_string(key) + ":" +
            (few ? sparse_points(values, axes, limits.curve_points) : dense_curve(values, edges));
  }
  for (const auto& [key, entries] : run.arrays) {
    if (entries.empty() || !key.ends_with(".load")) continue;
    loads += (loads.empty() ? "" : ",") + load_map(key.substr(0, key.size() - 5), entries, axes, limits.load_columns);
  }
  return fmt::format(R"({{"name":{},"state":{},"config":{},"plan":{},"axis":{},"dense":{{{}}},"sparse":{{{}}},"loads":[{}]}})",
                     json_string(run.name), json_string(run.state), json_string(run.config_text), plan_data(run), axes.at(ends), dense,
                     sparse, loads);
}

}  // namespace

std::string page_data(std::span<const Run> runs, const PageLimits& limits) {
  std::string text = R"({"summary":[)";
  bool first = true;
  for (const SummaryLine& line : summary_lines(runs)) {
    text +=
        fmt::format(R"({}{{"title":{},"cells":{}}})", first ? "" : ",", json_string(line.title), nlohmann::json(line.cells).dump());
    first = false;
  }
  text += R"(],"runs":[)";
  for (std::size_t i = 0; i < runs.size(); ++i) text += (i > 0 ? "," : "") + run_data(runs[i], limits);
  return text + "]}";
}

}  // namespace hadal::report
