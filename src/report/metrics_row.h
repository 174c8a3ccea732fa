// One line of metrics.jsonl (spec/interop.md 9.2): an ordered list of flat dotted keys with numbers, strings or arrays.
// NaN and infinities are the strings "NaN", "Infinity", "-Infinity" in the file and numbers here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hadal::report {

class MetricsRow {
 public:
  using Value = std::variant<std::int64_t, double, std::string, std::vector<double>>;

  /// Appends, or replaces the value of a key that is there.
  void set(std::string_view key, Value value);
  const Value* find(std::string_view key) const;
  /// The value as a number; nothing when absent or not a number.
  std::optional<double> number(std::string_view key) const;
  const std::vector<double>* array(std::string_view key) const;
  /// The "step" key; -1 when there is none.
  std::int64_t step() const;
  const std::vector<std::pair<std::string, Value>>& entries() const { return entries_; }
  /// Numbers, array elements included, that are not finite.
  std::int64_t num_non_finite() const;

  /// `{"ts":1.5,"step":3,...}` without the newline.
  std::string json() const;
  /// Nothing when `line` is not an object; values of other types (objects, booleans) are left out.
  static std::optional<MetricsRow> parse(std::string_view line);

 private:
  std::vector<std::pair<std::string, Value>> entries_;
};

}  // namespace hadal::report
