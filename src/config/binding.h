// A Config as a tree of named, typed references. The only code that instantiates `visit`: readers, writers, schema and
// checks walk these fields instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.h"
#include "config/field.h"
#include "config/machine_section.h"

namespace hadal::config {

struct Field;
using Fields = std::vector<Field>;

/// An enum: an index into Field::choices.
struct ChoiceRef {
  std::function<std::size_t()> get;
  std::function<void(std::size_t)> set;
};

/// A list of structs; `element` binds one of them, `sample` a default-made one that belongs to nobody (for the schema).
struct ListRef {
  std::function<std::size_t()> size;
  std::function<void(std::size_t)> resize;
  std::function<Fields(std::size_t)> element;
  std::function<Fields()> sample;
};

/// A section; its keys are Field::children.
struct SectionRef {};

struct Field {
  std::string_view name;
  std::string_view help;
  Range range;
  std::vector<std::string_view> choices;
  std::vector<Field> children;
  std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::int64_t>*, std::vector<double>*, ChoiceRef, ListRef,
               SectionRef>
      value;

  bool is_section() const { return std::holds_alternative<SectionRef>(value); }
  bool is_list() const { return std::holds_alternative<ListRef>(value); }
};

/// Fields of `config` in the order of visit; they point into it and must not outlive it.
Fields bind(Config& config);
/// The same of a machine file.
Fields bind(MachineSection& machine);

/// The field called `name` among siblings, or nullptr.
Field* find_field(Fields& fields, std::string_view name);
std::vector<std::string_view> names_of(const Fields& fields);

/// "an integer from 1 to 4096", "true or false", "mla or gqa", "a list of numbers from 0 to 1", "a section".
std::string allowed_text(const Field& field);
/// A bound as people write it: 4096, 1e6, 0.5.
std::string bound_text(double bound);

/// "a.b" + "c" -> "a.b.c"; "" + "c" -> "c".
std::string join_path(std::string_view prefix, std::string_view name);

}  // namespace hadal::config
