#include "report/figures.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace hadal::report {
namespace {

/// Columns of UTF-8 text: continuation bytes take none.
std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::vector<double> finite_values(const Run& run, std::string_view key, std::size_t first_row) {
  std::vector<double> values;
  if (const std::vector<double>* column = run.column(key)) {
    for (std::size_t row = first_row; row < column->size(); ++row) {
      if (std::isfinite((*column)[row])) values.push_back((*column)[row]);
    }
  }
  return values;
}

double median(std::vector<double> values) {
  if (values.empty()) return kMissing;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double largest(const std::vector<double>& values) { return values.empty() ? kMissing : *std::max_element(values.begin(), values.end()); }

std::string scaled_text(double value, const char* unit) {
  if (value >= 1e9) return fmt::format("{:.2f} G{}", value * 1e-9, unit);
  if (value >= 1e6) return fmt::format("{:.2f} M{}", value * 1e-6, unit);
  if (value >= 1e4) return fmt::format("{:.1f} k{}", value * 1e-3, unit);
  return fmt::format("{:.0f}{}{}", value, *unit == '\0' ? "" : " ", unit);
}

std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.empty() ? 0 : rows.front().size(), 0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], columns_of(row[c]));
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string blanks(widths[c] - columns_of(row[c]), ' ');
      text += c == 0 ? row[c] + blanks : "  " + blanks + row[c];
    }
    text += '\n';
  }
  return text;
}

}  // namespace hadal::report
