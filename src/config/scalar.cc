#include "config/scalar.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

namespace hadal::config {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// A decimal in pieces; digits have their underscores removed.
struct Decimal {
  bool negative = false;
  std::string integer;   // digits before the point
  std::string fraction;  // digits after it
  bool has_point = false;
  bool has_exponent = false;
  int exponent = 0;
  bool ok = false;
  std::string reason;  // why it is no decimal, where there is more to say than that
};

/// Digits with single underscores between them, from `text` at `i` on.
bool read_digits(std::string_view text, std::size_t& i, std::string& digits) {
  while (i < text.size() && (is_digit(text[i]) || text[i] == '_')) {
    if (text[i] == '_') {
      const bool between = i > 0 && is_digit(text[i - 1]) && i + 1 < text.size() && is_digit(text[i + 1]);
      if (!between) return false;
    } else {
      digits += text[i];
    }
    ++i;
  }
  return true;
}

Decimal read_decimal(std::string_view text) {
  Decimal decimal;
  const auto fail = [&](std::string reason) {
    decimal.reason = std::move(reason);
    return decimal;
  };
  if (text.size() > 64) return fail("is too long");
  std::size_t i = 0;
  if (i < text.size() && (text[i] == '+' || text[i] == '-')) decimal.negative = text[i++] == '-';
  if (!read_digits(text, i, decimal.integer)) return fail("has a misplaced _");
  if (i < text.size() && text[i] == '.') {
    decimal.has_point = true;
    if (!read_digits(text, ++i, decimal.fraction)) return fail("has a misplaced _");
  }
  if (decimal.integer.empty() && decimal.fraction.empty()) return fail("");
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    decimal.has_exponent = true;
    ++i;
    const bool negative = i < text.size() && text[i] == '-';
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    const std::size_t first = i;
    int exponent = 0;
    for (; i < text.size() && is_digit(text[i]) && exponent < 100000; ++i) exponent = exponent * 10 + (text[i] - '0');
    if (i == first) return fail("");
    decimal.exponent = negative ? -exponent : exponent;
  }
  if (i != text.size()) return fail("");
  if (decimal.integer.size() > 1 && decimal.integer[0] == '0') return fail("starts with 0 (there are no octal numbers)");
  decimal.ok = true;
  return decimal;
}

std::string because(std::string_view text, std::string_view wanted, const std::string& reason) {
  return reason.empty() ? fmt::format("{} is not {}", text, wanted) : fmt::format("{} {}", text, reason);
}

}  // namespace

Parsed<bool> parse_bool(std::string_view text) {
  if (text == "true") return {true, {}};
  if (text == "false") return {false, {}};
  return {{}, fmt::format("{} is not true or false", text)};
}

Parsed<std::int64_t> parse_integer(std::string_view text) {
  const Decimal decimal = read_decimal(text);
  if (!decimal.ok) return {{}, because(text, "an integer", decimal.reason)};
  if (decimal.has_point && !decimal.has_exponent) return {{}, because(text, "an integer", "")};
  // All digits, then the point moved by the exponent: what is left behind it must be zeros.
  std::string digits = decimal.integer + decimal.fraction;
  const int point = static_cast<int>(decimal.integer.size()) + decimal.exponent;
  if (digits.find_first_not_of('0') == std::string::npos) return {0, {}};
  for (int i = std::max(point, 0); i < static_cast<int>(digits.size()); ++i) {
    if (digits[static_cast<std::size_t>(i)] != '0') return {{}, because(text, "an integer", "")};
  }
  if (point <= 0) return {{}, because(text, "an integer", "")};
  if (point > 40) return {{}, fmt::format("{} does not fit 64 bits", text)};
  digits.resize(static_cast<std::size_t>(point), '0');
  if (decimal.negative) digits.insert(digits.begin(), '-');
  std::int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) {
    return {{}, fmt::format("{} does not fit 64 bits", text)};
  }
  return {value, {}};
}

Parsed<double> parse_number(std::string_view text) {
  const Decimal decimal = read_decimal(text);
  if (!decimal.ok) return {{}, because(text, "a number", decimal.reason)};
  const std::string plain =
      fmt::format("{}{}.{}e{}", decimal.negative ? "-" : "", decimal.integer.empty() ? "0" : decimal.integer,
                  decimal.fraction.empty() ? "0" : decimal.fraction, decimal.exponent);
  double value = 0.0;
  const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (result.ec != std::errc() || !std::isfinite(value)) return {{}, fmt::format("{} does not fit a double", text)};
  return {value, {}};
}

std::string number_text(double value) { return fmt::format("{}", value); }

}  // namespace hadal::config
