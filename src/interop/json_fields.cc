#include "interop/json_fields.h"

#include <fmt/core.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace hadal::interop {
namespace {

/// At most a line of a value for a message.
std::string shown(const nlohmann::json& value) { return value.dump(-1, ' ', true).substr(0, 80); }

}  // namespace

const nlohmann::json* JsonFields::find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::has(const char* key) const { return find(key) != nullptr; }

void JsonFields::problem(const char* key, const std::string& text) const {
  problems_.push_back(fmt::format("{}{}: {}", prefix_, key, text));
}

std::int64_t JsonFields::integer(const char* key, std::int64_t low, std::int64_t high,
                                 std::optional<std::int64_t> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (!fallback) problem(key, "is missing");
    return fallback.value_or(low);
  }
  const bool fits =
      value->is_number_unsigned() ? value->get<std::uint64_t>() <= static_cast<std::uint64_t>(high) : value->is_number_integer();
  if (!fits || value->get<std::int64_t>() < low || value->get<std::int64_t>() > high) {
    problem(key, fmt::format("{} is no integer between {} and {}", shown(*value), low, high));
    return low;
  }
  return value->get<std::int64_t>();
}

double JsonFields::number(const char* key, double low, double high, std::optional<double> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (!fallback) problem(key, "is missing");
    return fallback.value_or(low);
  }
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= low && number <= high)) {
    problem(key, fmt::format("{} is no number between {} and {}", shown(*value), low, high));
    return low;
  }
  return number;
}

bool JsonFields::boolean(const char* key, std::optional<bool> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (!fallback) problem(key, "is missing");
    return fallback.value_or(false);
  }
  if (!value->is_boolean()) problem(key, fmt::format("{} is neither true nor false", shown(*value)));
  return value->is_boolean() && value->get<bool>();
}

std::string JsonFields::text(const char* key, std::optional<std::string> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (!fallback) problem(key, "is missing");
    return fallback.value_or("");
  }
  if (!value->is_string()) {
    problem(key, fmt::format("{} is no text", shown(*value)));
    return fallback.value_or("");
  }
  return value->get<std::string>();
}

const nlohmann::json* JsonFields::object(const char* key) const {
  const nlohmann::json* value = find(key);
  if (value != nullptr && !value->is_object()) {
    problem(key, fmt::format("{} is no object", shown(*value)));
    return nullptr;
  }
  return value;
}

std::vector<std::int64_t> JsonFields::integers(const char* key, std::int64_t low, std::int64_t high) const {
  std::vector<std::int64_t> values;
  const nlohmann::json* list = find(key);
  if (list == nullptr) return values;
  if (!list->is_array()) {
    problem(key, fmt::format("{} is no list", shown(*list)));
    return values;
  }
  for (const nlohmann::json& value : *list) {
    const bool fits = value.is_number_unsigned() && value.get<std::uint64_t>() <= static_cast<std::uint64_t>(high);
    if (!fits || value.get<std::int64_t>() < low || (!values.empty() && value.get<std::int64_t>() <= values.back())) {
      problem(key, fmt::format("{} is no ascending list of integers between {} and {}", shown(*list), low, high));
      return {};
    }
    values.push_back(value.get<std::int64_t>());
  }
  return values;
}

void JsonFields::only_false(const char* key, const char* why) const {
  if (boolean(key, false)) problem(key, fmt::format("true is not supported: {}", why));
}

void JsonFields::only_text(const char* key, std::string_view allowed, const char* why) const {
  const std::string value = text(key, std::string(allowed));
  if (value != allowed) problem(key, fmt::format("\"{}\" is not supported, only \"{}\": {}", value.substr(0, 64), allowed, why));
}

}  // namespace hadal::interop
