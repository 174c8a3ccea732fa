// What `visit` lines are made of: ranges, and the names of an enum's values.
#pragma once

#include <limits>
#include <string_view>

namespace hadal {

/// Inclusive bounds of a number.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

constexpr Range between(double low, double high) { return {low, high}; }
constexpr Range at_least(double low) { return {low, std::numeric_limits<double>::infinity()}; }

/// One spelling of an enum's value.
template <class E>
struct Choice {
  std::string_view name;
  E value;
};

}  // namespace hadal
