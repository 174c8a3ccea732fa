#include "config/binding.h"

#include <fmt/core.h>

#include <cmath>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <utility>

namespace hadal::config {
namespace {

template <class Struct>
Fields fields_of(Struct& section);

/// The visitor of config.h.
class Binder {
 public:
  explicit Binder(Fields& fields) : fields_(fields) {}

  template <class T>
  void key(std::string_view name, T& value, std::string_view help) {
    static_assert(std::is_same_v<T, bool> || std::is_same_v<T, std::string>, "numbers state their range");
    add(name, help, {}).value = &value;
  }

  template <class T>
  void key(std::string_view name, T& value, Range range, std::string_view help) {
    static_assert(std::is_same_v<T, std::int64_t> || std::is_same_v<T, double>);
    add(name, help, range).value = &value;
  }

  template <class E>
  void key(std::string_view name, E& value, std::initializer_list<Choice<E>> choices, std::string_view help) {
    Field& field = add(name, help, {});
    std::vector<E> values;
    for (const Choice<E>& choice : choices) {
      field.choices.push_back(choice.name);
      values.push_back(choice.value);
    }
    E* const target = &value;
    const auto get = [target, values] {
      std::size_t index = 0;
      while (index + 1 < values.size() && values[index] != *target) ++index;
      return index;
    };
    field.value = ChoiceRef{get, [target, values](std::size_t index) { *target = values.at(index); }};
  }

  template <class T>
  void numbers(std::string_view name, std::vector<T>& values, Range range, std::string_view help) {
    add(name, help, range).value = &values;
  }

  template <class Struct>
  void list(std::string_view name, std::vector<Struct>& elements, std::string_view help) {
    std::vector<Struct>* const target = &elements;
    const auto sample = [unused = std::make_shared<Struct>()] { return fields_of(*unused); };
    add(name, help, {}).value = ListRef{[target] { return target->size(); }, [target](std::size_t size) { target->resize(size); },
                                        [target](std::size_t index) { return fields_of(target->at(index)); }, sample};
  }

  template <class Struct>
  void section(std::string_view name, Struct& section, std::string_view help) {
    Field& field = add(name, help, {});
    field.value = SectionRef{};
    field.children = fields_of(section);
  }

 private:
  Field& add(std::string_view name, std::string_view help, Range range) {
    fields_.push_back({name, help, range, {}, {}, SectionRef{}});
    return fields_.back();
  }

  Fields& fields_;
};

template <class Struct>
Fields fields_of(Struct& section) {
  Fields fields;
  Binder binder(fields);
  section.visit(binder);
  return fields;
}

std::string range_text(Range range) {
  if (std::isfinite(range.low) && std::isfinite(range.high)) {
    return fmt::format(" from {} to {}", bound_text(range.low), bound_text(range.high));
  }
  return std::isfinite(range.low) ? fmt::format(", at least {}", bound_text(range.low)) : std::string();
}

}  // namespace

Fields bind(Config& config) { return fields_of(config); }
Fields bind(MachineSection& machine) { return fields_of(machine); }

Field* find_field(Fields& fields, std::string_view name) {
  for (Field& field : fields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

std::vector<std::string_view> names_of(const Fields& fields) {
  std::vector<std::string_view> names;
  for (const Field& field : fields) names.push_back(field.name);
  return names;
}

std::string bound_text(double bound) {
  const bool integer = bound == std::floor(bound) && std::abs(bound) < 1e7;
  return integer ? fmt::format("{}", static_cast<std::int64_t>(bound)) : fmt::format("{}", bound);
}

std::string allowed_text(const Field& field) {
  struct Text {
    const Field& field;
    std::string operator()(const bool*) const { return "true or false"; }
    std::string operator()(const std::int64_t*) const { return "an integer" + range_text(field.range); }
    std::string operator()(const double*) const { return "a number" + range_text(field.range); }
    std::string operator()(const std::string*) const { return "text"; }
    std::string operator()(const std::vector<std::int64_t>*) const { return "a list of integers" + range_text(field.range); }
    std::string operator()(const std::vector<double>*) const { return "a list of numbers" + range_text(field.range); }
    std::string operator()(const ChoiceRef&) const {
      std::string text;
      for (std::size_t i = 0; i < field.choices.size(); ++i) {
        text += i == 0 ? "" : i + 1 == field.choices.size() ? " or " : ", ";
        text += field.choices[i];
      }
      return text;
    }
    std::string operator()(const ListRef& list) const {
      std::string text;
      for (const Field& key : list.sample()) text += fmt::format("{}{}", text.empty() ? "" : ", ", key.name);
      return fmt::format("a list of {{{}}}", text);
    }
    std::string operator()(SectionRef) const { return "a section"; }
  };
  return std::visit(Text{field}, field.value);
}

std::string join_path(std::string_view prefix, std::string_view name) {
  return prefix.empty() ? std::string(name) : fmt::format("{}.{}", prefix, name);
}

}  // namespace hadal::config
