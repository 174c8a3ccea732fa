#include "train/metrics.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "core/error.h"

namespace hadal::train {
namespace {

/// Opens for appending; the bytes after the last newline (a row that a killed run did not finish) are cut off.
File open_metrics(const std::filesystem::path& path) {
  File file = File::open_read_write(path);
  const std::uint64_t size = file.size();
  std::uint64_t end = size;
  std::array<std::byte, 4096> block;
  while (end > 0) {
    const std::uint64_t begin = end > block.size() ? end - block.size() : 0;
    const std::span<std::byte> bytes(block.data(), static_cast<std::size_t>(end - begin));
    file.read_at(begin, bytes);
    const auto newline = std::find(bytes.rbegin(), bytes.rend(), std::byte{'\n'});
    if (newline != bytes.rend()) {
      end = begin + static_cast<std::uint64_t>(bytes.rend() - newline);
      break;
    }
    end = begin;
  }
  if (end != size) file.truncate(end);
  return file;
}

}  // namespace

double wall_time() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) * 1e-3;
}

std::string tensorboard_tag(std::string_view key) {
  if (key == "ts" || key == "step") return "";
  if (key == "max_vio") return "moe/max_vio";
  if (key.starts_with("val_")) return "val/" + std::string(key.substr(4));
  for (const std::string_view name :
       {"tokens_per_s", "step_ms", "peak_share", "memory_bytes", "memory_bytes_max", "waited_share", "waited_share_mean"}) {
    if (key == name) return "perf/" + std::string(key);
  }
  const std::size_t dot = key.find('.');
  if (dot == std::string_view::npos) return "train/" + std::string(key);
  return std::string(key.substr(0, dot)) + "/" + std::string(key.substr(dot + 1));
}

MetricsWriter::MetricsWriter(const std::filesystem::path& run_dir, std::optional<std::int64_t> resumed_step,
                             std::string_view config_text)
    : file_(open_metrics(run_dir / "metrics.jsonl")), tensorboard_(run_dir / "tensorboard", wall_time(), resumed_step) {
  if (resumed_step) {
    report::MetricsRow row;
    row.set("step", *resumed_step);
    row.set("event", std::string("resume"));
    write(std::move(row));
  } else if (!config_text.empty()) {
    tensorboard_.text(wall_time(), 0, "config", "```yaml\n" + std::string(config_text) + "\n```");
    tensorboard_.flush();
  }
}

void MetricsWriter::write(report::MetricsRow row) {
  HADAL_CHECK(row.step() >= 0, "a row of metrics without a step");
  if (row.find("ts") == nullptr) {
    report::MetricsRow stamped;
    stamped.set("ts", wall_time());
    for (const auto& [key, value] : row.entries()) stamped.set(key, value);
    row = std::move(stamped);
  }
  num_non_finite_ += row.num_non_finite();
  const std::string line = row.json() + "\n";
  file_.append(std::as_bytes(std::span(line)));

  std::vector<std::pair<std::string, float>> scalars;
  for (const auto& [key, value] : row.entries()) {
    const std::string tag = tensorboard_tag(key);
    const std::optional<double> number = row.number(key);
    if (number && !tag.empty()) scalars.emplace_back(tag, static_cast<float>(*number));
  }
  tensorboard_.scalars(row.number("ts").value_or(wall_time()), row.step(), scalars);
}

void MetricsWriter::sync() {
  tensorboard_.flush();
  file_.sync();
}

}  // namespace hadal::train
