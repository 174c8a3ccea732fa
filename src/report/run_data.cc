#include "report/run_data.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "core/error.h"
#include "core/file.h"

namespace hadal::report {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;
constexpr std::uint64_t kConfigBytes = std::uint64_t{4} << 20;
/// No row is longer; what is has no line ends and is no metrics file.
constexpr std::size_t kLineBytes = std::size_t{64} << 20;

/// Forgets rows whose step is above `step`.
void undo_after(Run& run, std::int64_t step) {
  const auto keep = static_cast<std::size_t>(std::upper_bound(run.steps.begin(), run.steps.end(), step) - run.steps.begin());
  run.num_undone += static_cast<std::int64_t>(run.steps.size() - keep);
  run.steps.resize(keep);
  for (auto& [key, values] : run.columns) values.resize(std::min(values.size(), keep), kMissing);
  for (auto& [key, list] : run.arrays) {
    while (!list.empty() && list.back().row >= keep) list.pop_back();
  }
}

void read_lines(const std::filesystem::path& path, Run& run) {
  const File file = File::open_read(path);
  const std::uint64_t size = file.size();
  std::string pending;
  for (std::uint64_t at = 0; at < size;) {
    std::string block(static_cast<std::size_t>(std::min<std::uint64_t>(kReadBytes, size - at)), '\0');
    file.read_at(at, std::as_writable_bytes(std::span(block)));
    at += block.size();
    std::size_t begin = 0;
    for (std::size_t end = block.find('\n'); end != std::string::npos; end = block.find('\n', begin)) {
      pending.append(block, begin, end - begin);
      begin = end + 1;
      if (const auto row = MetricsRow::parse(pending)) {
        add_row(run, *row);
      } else if (!pending.empty()) {
        ++run.num_bad_lines;
      }
      pending.clear();
    }
    pending.append(block, begin);
    if (pending.size() > kLineBytes)
      throw UserError("{}: a line of over {} bytes; this is no metrics.jsonl", path.string(), kLineBytes);
  }
}

std::string optional_text(const std::filesystem::path& path) {
  return std::filesystem::is_regular_file(path) ? read_file(path, kConfigBytes) : std::string();
}

/// run.name of the resolved config, or "".
std::string configured_name(const std::string& yaml) {
  constexpr std::string_view kKey = "\n  name: ";
  const std::size_t section = yaml.find("run:\n");
  if (section != 0 && (section == std::string::npos || yaml[section - 1] != '\n')) return "";
  const std::size_t end = std::min(yaml.find("\n", yaml.find_first_not_of(' ', section)), yaml.size());
  for (std::size_t line = end; line < yaml.size() && yaml.compare(line, 3, "\n  ") == 0;
       line = std::min(yaml.find('\n', line + 1), yaml.size())) {
    if (yaml.compare(line, kKey.size(), kKey) != 0) continue;
    const std::size_t begin = line + kKey.size();
    std::string name = yaml.substr(begin, yaml.find('\n', begin) - begin);
    if (name.size() >= 2 && (name.front() == '"' || name.front() == '\'') && name.back() == name.front())
      name = name.substr(1, name.size() - 2);
    return name;
  }
  return "";
}

}  // namespace

const std::vector<double>* Run::column(std::string_view key) const {
  const auto found = columns.find(key);
  return found == columns.end() ? nullptr : &found->second;
}

std::vector<double> Run::active_seconds() const {
  std::vector<double> seconds(steps.size(), 0.0);
  const std::vector<double>* stamps = column("ts");
  const std::vector<double>* lengths = column("step_ms");
  for (std::size_t row = 0; row < steps.size(); ++row) {
    const double step_seconds = lengths == nullptr ? kMissing : (*lengths)[row] * 1e-3;
    double passed = std::isfinite(step_seconds) ? step_seconds : 0.0;
    if (row > 0 && stamps != nullptr) {
      const double between = (*stamps)[row] - (*stamps)[row - 1];
      const auto count = static_cast<double>(steps[row] - steps[row - 1]);
      // A wait far above the step's own time is a stop and a resume.
      const bool pause = std::isfinite(step_seconds) && between > 600.0 + 100.0 * step_seconds * count;
      if (std::isfinite(between) && between >= 0.0 && !pause) passed = between;
    }
    seconds[row] = (row > 0 ? seconds[row - 1] : 0.0) + passed;
  }
  return seconds;
}

void add_row(Run& run, const MetricsRow& row) {
  const std::int64_t step = row.step();
  if (step < 0) {
    ++run.num_bad_lines;
    return;
  }
  undo_after(run, step);
  if (row.find("event") != nullptr) {
    ++run.num_resumes;
    run.last_start = step;
    return;
  }
  if (run.steps.empty() || run.steps.back() != step) run.steps.push_back(step);
  const std::size_t index = run.steps.size() - 1;
  for (const auto& [key, value] : row.entries()) {
    if (const auto* list = std::get_if<std::vector<double>>(&value)) {
      auto& rows = run.arrays[key];
      if (!rows.empty() && rows.back().row == index) rows.pop_back();
      rows.push_back({index, std::vector<float>(list->begin(), list->end())});
    } else if (const auto number = row.number(key)) {
      auto& column = run.columns[key];
      column.resize(run.steps.size(), kMissing);
      column[index] = *number;
      run.num_non_finite += std::isfinite(*number) ? 0 : 1;
    }
  }
}

Run load_run(const std::filesystem::path& path) {
  Run run;
  const bool is_file = std::filesystem::is_regular_file(path);
  const std::filesystem::path metrics = is_file ? path : path / "metrics.jsonl";
  if (!std::filesystem::is_regular_file(metrics)) {
    throw UserError("{}: no metrics.jsonl there; give a run directory (run.dir of its config)", path.string());
  }
  const std::filesystem::path absolute = std::filesystem::weakly_canonical(metrics);
  run.directory = metrics.has_parent_path() ? metrics.parent_path() : std::filesystem::path(".");
  run.name = absolute.parent_path().filename().string();
  read_lines(metrics, run);
  if (run.steps.empty())
    throw UserError("{}: holds no row yet; a run writes its first row after its first step", metrics.string());
  for (auto& [key, values] : run.columns) values.resize(run.steps.size(), kMissing);
  run.config_text = optional_text(run.directory / "config.yaml");
  if (const std::string name = configured_name(run.config_text); !name.empty()) run.name = name;
  const auto status = nlohmann::json::parse(optional_text(run.directory / "status.json"), nullptr, false);
  if (status.is_object() && status.contains("state") && status["state"].is_string())
    run.state = status["state"].get<std::string>();
  run.plan = read_plan(run.directory);
  return run;
}

}  // namespace hadal::report
