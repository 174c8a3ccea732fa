#include "config/value_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <variant>
#include <vector>

#include "config/scalar.h"

namespace hadal::config {
namespace {

/// Plain where no YAML reader could take it for anything but text, else in double quotes.
std::string text_scalar(const std::string& text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/' ||
           c == '-';
  };
  const bool word = !text.empty() && std::all_of(text.begin(), text.end(), plain) &&
                    text.find_first_of("/_") != std::string::npos && text[0] != '-' && text[0] != '.' &&
                    !(text[0] >= '0' && text[0] <= '9');
  if (word) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

/// A leaf value as YAML.
struct ScalarText {
  const Field& field;
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::int64_t* value) const { return fmt::format("{}", *value); }
  std::string operator()(const double* value) const { return number_text(*value); }
  std::string operator()(const std::string* value) const { return text_scalar(*value); }
  std::string operator()(const std::vector<std::int64_t>* values) const { return numbers(*values); }
  std::string operator()(const std::vector<double>* values) const { return numbers(*values); }
  std::string operator()(const ChoiceRef& choice) const { return std::string(field.choices[choice.get()]); }
  std::string operator()(const ListRef&) const { return ""; }
  std::string operator()(SectionRef) const { return ""; }

  template <class T>
  static std::string numbers(const std::vector<T>& values) {
    std::string text;
    for (const T value : values) text += fmt::format("{}{}", text.empty() ? "" : ", ", value);
    return fmt::format("[{}]", text);
  }
};

}  // namespace

std::string value_text(const Field& field) { return std::visit(ScalarText{field}, field.value); }

}  // namespace hadal::config
