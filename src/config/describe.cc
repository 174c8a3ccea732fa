#include "config/describe.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "config/apply.h"
#include "config/binding.h"
#include "config/value_text.h"
#include "core/error.h"

namespace hadal::config {
namespace {

using Json = nlohmann::ordered_json;

Json object_schema(const Fields& fields);

void add_range(Json& schema, Range range) {
  // Integers as integers: editors show "minimum": 1, not 1.0.
  const auto bound = [](double value) {
    return value == std::floor(value) ? Json(static_cast<std::int64_t>(value)) : Json(value);
  };
  if (std::isfinite(range.low)) schema["minimum"] = bound(range.low);
  if (std::isfinite(range.high)) schema["maximum"] = bound(range.high);
}

Json field_schema(const Field& field) {
  struct Schema {
    const Field& field;
    Json operator()(const bool* value) const { return {{"type", "boolean"}, {"default", *value}}; }
    Json operator()(const std::int64_t* value) const {
      Json schema = {{"type", "integer"}};
      add_range(schema, field.range);
      schema["default"] = *value;
      return schema;
    }
    Json operator()(const double* value) const {
      Json schema = {{"type", "number"}};
      add_range(schema, field.range);
      schema["default"] = *value;
      return schema;
    }
    Json operator()(const std::string* value) const { return {{"type", "string"}, {"default", *value}}; }
    Json operator()(const std::vector<std::int64_t>* values) const { return array("integer", *values); }
    Json operator()(const std::vector<double>* values) const { return array("number", *values); }
    Json operator()(const ChoiceRef& choice) const {
      return {{"type", "string"}, {"enum", field.choices}, {"default", field.choices[choice.get()]}};
    }
    Json operator()(const ListRef& list) const { return {{"type", "array"}, {"items", object_schema(list.sample())}}; }
    Json operator()(SectionRef) const { return object_schema(field.children); }

    Json array(const char* type, Json values) const {
      Json item = {{"type", type}};
      add_range(item, field.range);
      return {{"type", "array"}, {"items", item}, {"default", std::move(values)}};
    }
  };
  Json schema = {{"description", field.help}};
  schema.update(std::visit(Schema{field}, field.value));
  return schema;
}

Json object_schema(const Fields& fields) {
  Json properties = Json::object();
  for (const Field& field : fields) properties[std::string(field.name)] = field_schema(field);
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", properties}};
}

std::string default_text(const Field& field) { return field.is_list() ? "[]" : value_text(field); }

/// A table of the leaves of `fields`, then the sections below.
void append_tables(const Fields& fields, const std::string& path, std::string& text) {
  bool open = false;
  for (const Field& field : fields) {
    if (field.is_section()) continue;
    if (!open) text += "\n| key | values | default | meaning |\n|---|---|---|---|\n";
    open = true;
    text += fmt::format("| `{}` | {} | `{}` | {} |\n", join_path(path, field.name), allowed_text(field), default_text(field),
                        field.help);
    if (!field.is_list()) continue;
    for (const Field& key : std::get<ListRef>(field.value).sample()) {
      text += fmt::format("| `{}.N.{}` | {} | `{}` | {} |\n", join_path(path, field.name), key.name, allowed_text(key),
                          default_text(key), key.help);
    }
  }
  for (const Field& field : fields) {
    if (!field.is_section()) continue;
    const std::string section = join_path(path, field.name);
    text += fmt::format("\n{} `{}`: {}\n", path.empty() ? "##" : "###", section, field.help);
    append_tables(field.children, section, text);
  }
}

std::string explain_section(const Fields& fields, const std::string& path, std::string_view help) {
  std::string text = fmt::format("{}: {}\n", path, help);
  std::size_t width = 0;
  for (const Field& field : fields) width = std::max(width, field.name.size());
  for (const Field& field : fields) text += fmt::format("  {:<{}}  {}\n", field.name, width, field.help);
  return text;
}

bool is_index(std::string_view word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string explain_in(Fields fields, const Fields& root, std::string_view rest, const std::string& prefix) {
  const std::size_t dot = rest.find('.');
  const std::string_view name = rest.substr(0, dot);
  const std::string path = join_path(prefix, name);
  Field* field = find_field(fields, name);
  if (field == nullptr) throw UserError("{}: there is no such key{}", path, unknown_key_hint(name, fields, root));
  Fields children = field->is_list() ? std::get<ListRef>(field->value).sample() : field->children;
  rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  if (field->is_list() && is_index(rest.substr(0, rest.find('.')))) {
    rest = rest.find('.') == std::string_view::npos ? std::string_view() : rest.substr(rest.find('.') + 1);
  }
  if (!rest.empty()) return explain_in(std::move(children), root, rest, path);
  if (!children.empty()) return explain_section(children, path, field->help);
  return fmt::format("{}\n  {}\n  values   {}\n  default  {}\n", path, field->help, allowed_text(*field), default_text(*field));
}

}  // namespace

std::string json_schema() {
  Config defaults;
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "Hadal configuration"}};
  schema.update(object_schema(bind(defaults)));
  schema["properties"]["include"] = {{"type", "array"},
                                     {"items", {{"type", "string"}}},
                                     {"description", "files whose keys come first, relative to this file; later ones win"}};
  return schema.dump(2) + "\n";
}

std::string markdown_reference() {
  std::string text =
      "# Configuration keys\n\n"
      "Generated by `hadal config schema --markdown`. A configuration is a YAML file; every key has a default.\n\n"
      "- `include: [base.yaml]`, at the top level only, reads other files first, relative to the including file. Sections "
      "merge,\n"
      "  lists are replaced. Defaults < includes < the file < `section.key=value` on the command line (the last one wins).\n"
      "- List elements by index: `data.sources.0.weight=0.7`; whole lists in flow form: `'optim.schedule.milestones=[0.6, "
      "0.9]'`.\n"
      "- Paths (`run.dir`, `data.sources`, `data.tokenizer`) are relative to the working directory.\n"
      "- `true` and `false` only; integers may have `_` between digits or be exact like `1e9`; numbers are finite; no octal, no\n"
      "  `yes` or `on`; no anchors, aliases, tags or `<<`.\n"
      "- `hadal config show FILE --provenance` prints where each value came from, `hadal config explain KEY` one key.\n";
  Config defaults;
  append_tables(bind(defaults), "", text);
  return text;
}

std::string explain(std::string_view path) {
  Config defaults;
  const Fields root = bind(defaults);
  return explain_in(root, root, path, "");
}

}  // namespace hadal::config
