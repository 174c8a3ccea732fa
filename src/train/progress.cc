#include "train/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "comm/launcher.h"

namespace hadal::train {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kFirstLineSeconds = 2.0;
constexpr double kLineSeconds = 30.0;
/// Weight of the past per step in the mean step time.
constexpr double kSmoothing = 0.98;

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string_view variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::string_view() : std::string_view(text);
}

int terminal_width() {
  struct winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const std::string_view text = variable("COLUMNS");
  int columns = 0;
  std::from_chars(text.data(), text.data() + text.size(), columns);
  return columns > 0 ? columns : 100;
}

/// "14.2k", "870", "1.31M".
std::string short_number(double value) {
  if (value >= 1e6) return fmt::format("{:.2f}M", value * 1e-6);
  if (value >= 1e4) return fmt::format("{:.1f}k", value * 1e-3);
  return fmt::format("{:.0f}", value);
}

}  // namespace

ProgressOptions detect_progress(std::int64_t total_steps, bool quiet) {
  ProgressOptions options;
  options.total_steps = total_steps;
  const std::string_view wish = variable("HADAL_PROGRESS");
  const bool terminal = isatty(STDERR_FILENO) == 1 && !comm::detect_launcher().present();
  if (quiet || wish == "none") {
    options.style = ProgressStyle::kNone;
  } else if (wish == "live" || (wish != "plain" && terminal && variable("TERM") != "dumb")) {
    options.style = ProgressStyle::kLive;
    options.width = terminal_width();
    options.colour = variable("NO_COLOR").empty();
  }
  return options;
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (seconds < 10) return fmt::format("{:.1f}s", seconds);
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole % 86400 / 3600);
}

std::string progress_line(const report::MetricsRow& row, std::int64_t total_steps, double eta_seconds, int width) {
  struct Field {
    int rank;  ///< the largest goes first when room is short
    std::string text;
  };
  const std::string total = fmt::format("{}", total_steps);
  std::vector<Field> fields{{0, fmt::format("step {:>{}}/{}", row.step(), total.size(), total)}};
  const auto add = [&](int rank, std::string_view key, auto format) {
    if (const auto value = row.number(key)) fields.push_back({rank, format(*value)});
  };
  add(1, "loss", [](double v) { return fmt::format("loss {:.4f}", v); });
  add(7, "mtp_loss", [](double v) { return fmt::format("mtp {:.4f}", v); });
  add(6, "lr", [](double v) { return fmt::format("lr {:.2e}", v); });
  add(9, "grad_norm", [](double v) { return fmt::format("gnorm {:.2f}", v); });
  add(3, "tokens_per_s", [](double v) { return fmt::format("{} tok/s", short_number(v)); });
  add(5, "peak_share", [](double v) { return fmt::format("peak {:.0f}%", 100 * v); });
  add(8, "max_vio", [](double v) { return fmt::format("maxvio {:.2f}", v); });
  add(4, "val_loss", [](double v) { return fmt::format("val {:.4f}", v); });
  if (eta_seconds >= 0) fields.push_back({2, "eta " + duration_text(eta_seconds)});
  const auto joined = [&] {
    std::string line;
    for (const Field& field : fields) line += (line.empty() ? "" : " | ") + field.text;
    return line;
  };
  while (width > 0 && fields.size() > 1 && joined().size() > static_cast<std::size_t>(width)) {
    fields.erase(std::max_element(fields.begin(), fields.end(), [](const Field& x, const Field& y) { return x.rank < y.rank; }));
  }
  return joined();
}

Progress::Progress(const ProgressOptions& options, std::FILE* out) : options_(options), out_(out), start_(seconds_now()) {
  last_time_ = start_;
}

Progress::~Progress() { finish(); }

double Progress::eta(std::int64_t step, double now) {
  if (last_step_ >= 0 && step > last_step_) {
    const double per_step = (now - last_time_) / static_cast<double>(step - last_step_);
    step_time_ = kSmoothing * step_time_ + per_step;
    step_weight_ = kSmoothing * step_weight_ + 1.0;
  }
  last_step_ = step;
  last_time_ = now;
  if (step_weight_ <= 0) return -1.0;
  return step_time_ / step_weight_ * static_cast<double>(std::max<std::int64_t>(0, options_.total_steps - step));
}

void Progress::update(const report::MetricsRow& row, bool interval_ended) {
  if (options_.style == ProgressStyle::kNone) return;
  const double now = seconds_now();
  const double eta_seconds = eta(row.step(), now);
  const bool last = row.step() == options_.total_steps;
  const double since = now - last_drawn_;
  if (options_.style == ProgressStyle::kLive) {
    if (since < kRedrawSeconds && !last) return;
  } else {
    const double pause = std::clamp((now - start_) / 10, kFirstLineSeconds, kLineSeconds);
    if (!last && (!interval_ended || since < pause)) return;
  }
  last_drawn_ = now;
  const int width = options_.style == ProgressStyle::kLive && options_.width > 1 ? options_.width - 1 : 0;
  draw(progress_line(row, options_.total_steps, eta_seconds, width));
}

void Progress::draw(const std::string& line) {
  if (options_.style == ProgressStyle::kPlain) {
    fmt::print(out_, "{}\n", line);
    std::fflush(out_);
    return;
  }
  shown_ = line.substr(0, options_.width > 1 ? static_cast<std::size_t>(options_.width - 1) : line.size());
  const std::size_t first_field = options_.colour ? std::min(shown_.find(" | "), shown_.size()) : 0;
  const std::string_view text = shown_;
  fmt::print(out_, "\r\x1b[K{}{}{}{}", options_.colour ? "\x1b[1m" : "", text.substr(0, first_field),
             options_.colour ? "\x1b[0m" : "", text.substr(first_field));
  std::fflush(out_);
}

void Progress::note(std::string_view text) {
  if (options_.style == ProgressStyle::kNone) return;
  if (shown_.empty()) {
    fmt::print(out_, "{}\n", text);
  } else {
    const std::string again = shown_;
    fmt::print(out_, "\r\x1b[K{}\n", text);
    draw(again);
  }
  std::fflush(out_);
}

void Progress::finish() {
  if (shown_.empty()) return;
  fmt::print(out_, "\n");
  std::fflush(out_);
  shown_.clear();
}

}  // namespace hadal::train
