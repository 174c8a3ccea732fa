#include "report/terminal_plot.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

namespace hadal::report {
namespace {

/// Bits of the braille pattern by column (0, 1) and row (0 .. 3).
constexpr std::array<std::array<std::uint8_t, 4>, 2> kDots{{{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}};
constexpr std::array<int, 6> kColours{36, 33, 32, 35, 34, 31};
constexpr std::string_view kMarks = "*o+x#@";

/// U+2800 + bits as UTF-8.
std::string braille(std::uint8_t bits) {
  const unsigned code = 0x2800u + bits;
  return {static_cast<char>(0xe2), static_cast<char>(0x80u | ((code >> 6) & 0x3fu)), static_cast<char>(0x80u | (code & 0x3fu))};
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  /// 0 at low, 1 at high.
  double share(double value) const { return high > low ? (value - low) / (high - low) : 0.5; }
};

/// Character cells with dots inside; each cell has the colour of the last curve that touched it.
class Canvas {
 public:
  Canvas(int columns, int rows, bool unicode)
      : columns_(columns),
        rows_(rows),
        per_x_(unicode ? 2 : 1),
        per_y_(unicode ? 4 : 1),
        cells_(static_cast<std::size_t>(columns * rows)) {}

  int dots_x() const { return columns_ * per_x_; }
  int dots_y() const { return rows_ * per_y_; }

  void dot(int x, int y, int curve) {
    if (x < 0 || y < 0 || x >= dots_x() || y >= dots_y()) return;
    Cell& cell = cells_[static_cast<std::size_t>(y / per_y_ * columns_ + x / per_x_)];
    cell.curve = curve;
    const auto column = static_cast<std::size_t>(x % per_x_);
    const auto row = static_cast<std::size_t>(y % per_y_);
    cell.bits = static_cast<std::uint8_t>(cell.bits | kDots[column][row]);
  }

  void segment(int x0, int y0, int x1, int y1, int curve) {
    const int count = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
    for (int i = 0; i <= count; ++i) {
      const double share = static_cast<double>(i) / count;
      dot(static_cast<int>(std::lround(x0 + share * (x1 - x0))), static_cast<int>(std::lround(y0 + share * (y1 - y0))), curve);
    }
  }

  std::string row_text(int row, const PlotOptions& options) const {
    std::string text;
    for (int column = 0; column < columns_; ++column) {
      const Cell& cell = cells_[static_cast<std::size_t>(row * columns_ + column)];
      if (cell.curve < 0) {
        text += ' ';
        continue;
      }
      const auto index = static_cast<std::size_t>(cell.curve);
      const std::string mark = options.unicode ? braille(cell.bits) : std::string(1, kMarks[index % kMarks.size()]);
      text += options.colour ? fmt::format("\x1b[{}m{}\x1b[0m", kColours[index % kColours.size()], mark) : mark;
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
  }

 private:
  struct Cell {
    std::uint8_t bits = 0;
    int curve = -1;
  };
  int columns_;
  int rows_;
  int per_x_;
  int per_y_;
  std::vector<Cell> cells_;
};

void draw(Canvas& canvas, const Curve& curve, int index, const Range& xs, const Range& ys) {
  const auto place = [](double share, int dots) { return static_cast<int>(std::lround(share * (dots - 1))); };
  bool joined = false;
  int last_x = 0, last_y = 0;
  for (std::size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i) {
    if (!std::isfinite(curve.x[i]) || !std::isfinite(curve.y[i])) {
      joined = false;
      continue;
    }
    const int x = place(xs.share(curve.x[i]), canvas.dots_x());
    const int y = canvas.dots_y() - 1 - place(ys.share(curve.y[i]), canvas.dots_y());
    if (curve.line && joined) {
      canvas.segment(last_x, last_y, x, y, index);
    } else {
      canvas.dot(x, y, index);
    }
    if (!curve.line) {
      // a cross of dots, so that a mark is seen beside a line
      for (const auto& [dx, dy] : {std::pair{-1, 0}, {1, 0}, {0, -1}, {0, 1}}) canvas.dot(x + dx, y + dy, index);
    }
    joined = true;
    last_x = x;
    last_y = y;
  }
}

std::string tick_text(double value) {
  const double size = std::fabs(value);
  if (size >= 1e6) return fmt::format("{:.4g}M", value * 1e-6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value * 1e-3);
  return fmt::format("{:.4g}", std::fabs(value) < 1e-300 ? 0.0 : value);
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double rough = (high - low) / std::max(count, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = power * 10;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (power * factor >= rough) {
      step = power * factor;
      break;
    }
  }
  std::vector<double> ticks;
  for (double tick = std::ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) ticks.push_back(tick);
  return ticks;
}

std::string terminal_plot(std::span<const Curve> curves, const PlotOptions& options) {
  Range xs, ys;
  for (const Curve& curve : curves) {
    for (std::size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i) {
      if (!std::isfinite(curve.x[i]) || !std::isfinite(curve.y[i])) continue;
      xs.add(curve.x[i]);
      ys.add(curve.y[i]);
    }
  }
  if (!(xs.low <= xs.high)) return "";
  const int rows = std::max(options.height, 4);
  constexpr int kLabel = 8;
  const int columns = std::max(options.width, 40) - kLabel - 2;
  Canvas canvas(columns, rows, options.unicode);
  for (std::size_t c = 0; c < curves.size(); ++c) draw(canvas, curves[c], static_cast<int>(c), xs, ys);

  const std::vector<double> y_ticks = axis_ticks(ys.low, ys.high, std::max(2, rows / 3));
  const char* bar = options.unicode ? "\u2502" : "|";
  const char* notch = options.unicode ? "\u2524" : "+";
  std::string text;
  for (int row = 0; row < rows; ++row) {
    std::string label;
    for (const double tick : y_ticks) {
      const auto tick_row = static_cast<int>(std::lround((1.0 - ys.share(tick)) * (rows - 1)));
      if (tick_row == row) label = tick_text(tick);
    }
    text += fmt::format("{:>{}} {}{}\n", label, kLabel, label.empty() ? bar : notch, canvas.row_text(row, options));
  }
  const char* corner = options.unicode ? "\u2514" : "+";
  const char* dash = options.unicode ? "\u2500" : "-";
  text += std::string(kLabel + 1, ' ') + corner;
  for (int column = 0; column < columns; ++column) text += dash;
  text += '\n';

  const std::size_t title_columns = options.x_title.empty() ? 0 : options.x_title.size() + 1;
  const std::size_t label_columns = static_cast<std::size_t>(columns) + 1 - std::min<std::size_t>(title_columns, 20);
  std::string labels(label_columns, ' ');
  std::size_t free_from = 0;
  for (const double tick : axis_ticks(xs.low, xs.high, std::max(2, columns / 14))) {
    const std::string label = tick_text(tick);
    const auto middle = static_cast<std::ptrdiff_t>(std::lround(xs.share(tick) * (columns - 1))) + 1;
    const std::ptrdiff_t last = static_cast<std::ptrdiff_t>(labels.size()) - static_cast<std::ptrdiff_t>(label.size());
    const auto begin =
        static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(middle - static_cast<std::ptrdiff_t>(label.size()) / 2, 0, last));
    if (begin < free_from) continue;
    labels.replace(begin, label.size(), label);
    free_from = begin + label.size() + 1;
  }
  text += std::string(kLabel + 1, ' ') + labels + (options.x_title.empty() ? "" : " " + options.x_title) + "\n";

  if (curves.size() > 1) {
    text += std::string(kLabel + 2, ' ');
    for (std::size_t c = 0; c < curves.size(); ++c) {
      const std::string mark =
          options.unicode ? (curves[c].line ? "\u2500\u2500" : "\u2022") : std::string(1, kMarks[c % kMarks.size()]);
      text += options.colour ? fmt::format("\x1b[{}m{}\x1b[0m {}   ", kColours[c % kColours.size()], mark, curves[c].name)
                             : fmt::format("{} {}   ", mark, curves[c].name);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

}  // namespace hadal::report
