#include "config/override.h"

#include <fmt/core.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <variant>
#include <vector>

#include "config/environment.h"

namespace hadal::config {
namespace {

/// One element of a list of numbers as a field of its own.
template <class T>
Field element_field(const Field& field, std::vector<T>& numbers, std::size_t index) {
  return {field.name, field.help, field.range, {}, {}, &numbers[index]};
}

class Override {
 public:
  Override(const std::string& text, const Target& target)
      : place_{std::make_shared<const Source>(Source{"command line", text, false}), 1, 1}, target_(target) {}

  void run(const std::string& text, Fields& fields) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      target_.problems.add(place_, "an override is section.key=value");
      return;
    }
    raw_ = text.substr(equals + 1);
    descend(fields, std::string_view(text).substr(0, equals), "");
  }

 private:
  /// Follows `rest` ("data.sources.0.weight") from `fields`, which stand below `prefix`.
  void descend(Fields& fields, std::string_view rest, const std::string& prefix) {
    const std::size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    const std::string path = join_path(prefix, name);
    Field* field = find_field(fields, name);
    if (field == nullptr) {
      target_.problems.add(place_, fmt::format("{}: unknown key{}", path, unknown_key_hint(name, fields, target_.root)));
      return;
    }
    if (dot == std::string_view::npos) {
      set(*field, path);
      return;
    }
    rest.remove_prefix(dot + 1);
    if (field->is_section()) {
      descend(field->children, rest, path);
    } else if (field->is_list()) {
      const ListRef& list = std::get<ListRef>(field->value);
      const std::optional<std::size_t> index = read_index(rest, list.size(), path);
      if (!index) return;
      Fields element = list.element(*index);
      const std::size_t next = rest.find('.');
      const std::string element_path = join_path(path, rest.substr(0, next));
      if (next == std::string_view::npos) {
        apply_map(parse(), element, element_path, target_);
      } else {
        descend(element, rest.substr(next + 1), element_path);
      }
    } else if (auto* const* integers = std::get_if<std::vector<std::int64_t>*>(&field->value)) {
      set_element(*field, **integers, rest, path);
    } else if (auto* const* doubles = std::get_if<std::vector<double>*>(&field->value)) {
      set_element(*field, **doubles, rest, path);
    } else {
      target_.problems.add(place_, fmt::format("{}: has no key {}: it is {}", path, rest, allowed_text(*field)));
    }
  }

  template <class T>
  void set_element(const Field& field, std::vector<T>& numbers, std::string_view rest, const std::string& path) {
    const std::optional<std::size_t> index = read_index(rest, numbers.size(), path);
    if (!index) return;
    Field element = element_field(field, numbers, *index);
    set(element, join_path(path, rest));
  }

  std::optional<std::size_t> read_index(std::string_view rest, std::size_t size, const std::string& path) {
    const std::string_view word = rest.substr(0, rest.find('.'));
    std::size_t index = 0;
    const auto result = std::from_chars(word.data(), word.data() + word.size(), index);
    if (result.ec != std::errc() || result.ptr != word.data() + word.size() || index >= size) {
      target_.problems.add(place_, fmt::format("{}: {} is not one of its elements; it has {}{}", path, word, size,
                                               size == 0 ? "" : fmt::format(", 0 to {}", size - 1)));
      return std::nullopt;
    }
    return index;
  }

  void set(Field& field, const std::string& path) {
    const bool plain = std::holds_alternative<std::int64_t*>(field.value) || std::holds_alternative<double*>(field.value) ||
                       std::holds_alternative<bool*>(field.value) || std::holds_alternative<std::string*>(field.value) ||
                       std::holds_alternative<ChoiceRef>(field.value);
    Value value;
    if (plain) {
      value.kind = Value::Kind::kScalar;
      value.text = expand_environment(raw_, place_, target_.problems).text;
      value.place = place_;
    } else {
      value = parse();
    }
    apply_value(value, field, path, target_);
  }

  /// The text after the = as YAML; its places are the override as a whole.
  Value parse() {
    Value value = parse_yaml(std::make_shared<const Source>(Source{"command line", raw_, false}), target_.problems);
    relocate(value);
    return value;
  }

  void relocate(Value& value) {
    value.place = place_;
    value.key_place = place_;
    for (Value& item : value.items) relocate(item);
  }

  Place place_;
  const Target& target_;
  std::string raw_;
};

}  // namespace

void apply_override(const std::string& text, Fields& fields, const Target& target) { Override(text, target).run(text, fields); }

}  // namespace hadal::config
