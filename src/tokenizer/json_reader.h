// A JSON value with its place in the file: typed access that ends in one sentence naming file, place, what was wanted and
// what was found.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace hadal::tokenizer {

class JsonReader {
 public:
  /// Parses `text`; refuses malformed text and nesting deeper than any real tokenizer file.
  static nlohmann::json parse(std::string_view text, const std::string& file) {
    static constexpr int kMaxDepth = 32;
    try {
      return nlohmann::json::parse(text, [&file](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
        if (depth > kMaxDepth) throw UserError("{}: nested deeper than {} levels", file, kMaxDepth);
        return true;
      });
    } catch (const nlohmann::json::exception& error) {
      throw UserError("{}: not valid JSON: {}", file, error.what());
    }
  }

  JsonReader(const nlohmann::json& value, const std::string& file, std::string place)
      : value_(&value), file_(&file), place_(std::move(place)) {}

  const nlohmann::json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  bool is_object() const { return value_->is_object(); }
  bool is_array() const { return value_->is_array(); }
  bool is_string() const { return value_->is_string(); }

  [[noreturn]] void refuse(std::string_view reason) const {
    throw UserError("{}: {}: {}", *file_, place_.empty() ? "the document" : place_, reason);
  }
  void want(bool right, std::string_view wanted) const {
    if (!right) refuse(fmt::format("expected {}, found {}", wanted, value_->type_name()));
  }

  const JsonReader& object() const {
    want(value_->is_object(), "an object");
    return *this;
  }
  const JsonReader& array() const {
    want(value_->is_array(), "an array");
    return *this;
  }
  const std::string& string() const {
    want(value_->is_string(), "a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    want(value_->is_boolean(), "true or false");
    return value_->get<bool>();
  }
  /// In [0, limit].
  std::int32_t integer(std::int32_t limit) const {
    want(value_->is_number_integer(), "an integer");
    const bool fits = value_->is_number_unsigned() && value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(limit);
    if (!fits) refuse(fmt::format("{} is outside 0 .. {}", value_->dump(), limit));
    return value_->get<std::int32_t>();
  }

  /// Member `key`, null when absent.
  JsonReader member(const std::string& key) const {
    static const nlohmann::json null;
    const auto found = object().value_->find(key);
    return JsonReader(found == value_->end() ? null : *found, *file_, place_.empty() ? key : place_ + "." + key);
  }
  JsonReader element(std::size_t index) const {
    return JsonReader((*array().value_)[index], *file_, fmt::format("{}[{}]", place_, index));
  }
  std::size_t size() const { return value_->size(); }

  /// Refuses members outside `known`.
  void only(std::initializer_list<std::string_view> known) const {
    for (const auto& item : object().value_->items()) {
      bool found = false;
      for (const std::string_view key : known) found = found || key == item.key();
      if (!found) refuse(fmt::format("unknown key '{}'", item.key()));
    }
  }

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  std::string place_;
};

}  // namespace hadal::tokenizer
