#include "checkpoint/state.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

DamagedDataError wrong_type(std::string_view key, std::string_view wanted) {
  return DamagedDataError("checkpoint state: \"{}\" is no {}", key, wanted);
}

}  // namespace

void State::set(std::string key, double value) {
  HADAL_CHECK(std::isfinite(value), "checkpoint state {} is {}", key, value);
  values_[std::move(key)] = value;
}

const State::Value& State::at(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) throw DamagedDataError("checkpoint state: \"{}\" is missing", key);
  return found->second;
}

std::int64_t State::integer(std::string_view key) const {
  const Value& value = at(key);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
  if (const auto* number = std::get_if<std::uint64_t>(&value)) {
    if (*number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return static_cast<std::int64_t>(*number);
  }
  throw wrong_type(key, "integer");
}

std::uint64_t State::unsigned_integer(std::string_view key) const {
  const Value& value = at(key);
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    if (*number >= 0) return static_cast<std::uint64_t>(*number);
  }
  throw wrong_type(key, "unsigned integer");
}

double State::number(std::string_view key) const {
  const Value& value = at(key);
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return static_cast<double>(*whole);
  if (const auto* whole = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*whole);
  throw wrong_type(key, "number");
}

const std::string& State::text(std::string_view key) const {
  const auto* text = std::get_if<std::string>(&at(key));
  if (text == nullptr) throw wrong_type(key, "text");
  return *text;
}

}  // namespace hadal::checkpoint
