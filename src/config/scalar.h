// The scalar grammar of configuration files: what a plain word means is fixed by the key's type, never guessed.
//   bool     true | false
//   integer  [+-] digits with _ between digits, no leading zero; or exact scientific form: 1e9, 2.5e3
//   number   an integer, or a decimal with optional fraction and exponent: 0.1, 1e-4, 3., .5; finite
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hadal::config {

/// A parsed scalar, or the reason why it is none (a sentence part: "is no integer", "does not fit 64 bits").
template <class T>
struct Parsed {
  std::optional<T> value;
  std::string reason;
};

Parsed<bool> parse_bool(std::string_view text);
Parsed<std::int64_t> parse_integer(std::string_view text);
Parsed<double> parse_number(std::string_view text);

/// Shortest decimal that parse_number reads back to the same double.
std::string number_text(double value);

}  // namespace hadal::config
