#include "report/metrics_row.h"

#include <fmt/core.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace hadal::report {
namespace {

std::string number_text(double value) {
  if (std::isnan(value)) return "\"NaN\"";
  if (std::isinf(value)) return value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  return fmt::format("{}", value);
}

std::string string_text(const std::string& value) {
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string value_text(const MetricsRow::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* number = std::get_if<double>(&value)) return number_text(*number);
  if (const auto* text = std::get_if<std::string>(&value)) return string_text(*text);
  std::string list = "[";
  for (const double element : std::get<std::vector<double>>(value)) {
    if (list.size() > 1) list += ',';
    list += number_text(element);
  }
  return list + "]";
}

std::optional<double> special_number(std::string_view text) {
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

std::optional<double> json_number(const nlohmann::json& node) {
  if (node.is_number()) return node.get<double>();
  if (node.is_string()) return special_number(node.get_ref<const std::string&>());
  return std::nullopt;
}

}  // namespace

void MetricsRow::set(std::string_view key, Value value) {
  for (auto& [name, old] : entries_) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::string(key), std::move(value));
}

const MetricsRow::Value* MetricsRow::find(std::string_view key) const {
  for (const auto& [name, value] : entries_) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::optional<double> MetricsRow::number(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* integer = std::get_if<std::int64_t>(value)) return static_cast<double>(*integer);
  if (const auto* number = std::get_if<double>(value)) return *number;
  return std::nullopt;
}

const std::vector<double>* MetricsRow::array(std::string_view key) const {
  const Value* value = find(key);
  return value == nullptr ? nullptr : std::get_if<std::vector<double>>(value);
}

std::int64_t MetricsRow::step() const {
  const Value* value = find("step");
  const auto* integer = value == nullptr ? nullptr : std::get_if<std::int64_t>(value);
  return integer == nullptr ? -1 : *integer;
}

std::int64_t MetricsRow::num_non_finite() const {
  std::int64_t count = 0;
  for (const auto& [name, value] : entries_) {
    if (const auto* number = std::get_if<double>(&value)) count += std::isfinite(*number) ? 0 : 1;
    if (const auto* list = std::get_if<std::vector<double>>(&value)) {
      for (const double element : *list) count += std::isfinite(element) ? 0 : 1;
    }
  }
  return count;
}

std::string MetricsRow::json() const {
  std::string text = "{";
  for (const auto& [key, value] : entries_) {
    if (text.size() > 1) text += ',';
    text += string_text(key) + ":" + value_text(value);
  }
  return text + "}";
}

std::optional<MetricsRow> MetricsRow::parse(std::string_view line) {
  const auto object = nlohmann::ordered_json::parse(line, nullptr, false);
  if (!object.is_object()) return std::nullopt;
  MetricsRow row;
  for (const auto& [key, node] : object.items()) {
    if (node.is_number_integer()) {
      row.set(key, node.get<std::int64_t>());
    } else if (const std::optional<double> number = json_number(node)) {
      row.set(key, *number);
    } else if (node.is_string()) {
      row.set(key, node.get<std::string>());
    } else if (node.is_array()) {
      std::vector<double> list;
      for (const auto& element : node) list.push_back(json_number(element).value_or(std::numeric_limits<double>::quiet_NaN()));
      row.set(key, std::move(list));
    }
  }
  return row;
}

}  // namespace hadal::report
