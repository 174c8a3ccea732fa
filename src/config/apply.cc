#include "config/apply.h"

#include <fmt/core.h>

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/nearest.h"
#include "config/scalar.h"
#include "config/utf8.h"

namespace hadal::config {
namespace {

/// Paths of all keys and sections, for "did you mean" across sections.
void collect_paths(const Fields& fields, const std::string& prefix, std::vector<std::string>& paths) {
  for (const Field& field : fields) {
    const std::string path = join_path(prefix, field.name);
    paths.push_back(path);
    collect_paths(field.children, path, paths);
  }
}

std::string shown(const Value& value) {
  switch (value.kind) {
    case Value::Kind::kNull:
      return "nothing";
    case Value::Kind::kList:
      return "a list";
    case Value::Kind::kMap:
      return "a map of keys";
    case Value::Kind::kScalar:
      break;
  }
  constexpr std::size_t kMaxShown = 60;
  return value.text.size() > kMaxShown ? value.text.substr(0, kMaxShown) + "..." : value.text;
}

/// Control characters and broken UTF-8 (escapes in quotes can make both) are no good in paths and titles.
bool is_clean_text(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return first_invalid_utf8(text) == std::string_view::npos;
}

class Applier {
 public:
  explicit Applier(const Target& target) : root_(target.root), origins_(target.origins), problems_(target.problems) {}

  void map(const Value& map, Fields& fields, const std::string& prefix) {
    if (map.kind != Value::Kind::kMap) {
      problems_.add(map.place, fmt::format("{}{} where keys are wanted, e.g. {}: ...", prefix.empty() ? "" : prefix + ": ",
                                           shown(map), fields.front().name));
      return;
    }
    std::map<std::string_view, const Value*> seen;
    for (const Value& entry : map.items) {
      const std::string path = join_path(prefix, entry.key);
      const auto [first, is_new] = seen.emplace(entry.key, &entry);
      if (!is_new) {
        problems_.add(entry.key_place, fmt::format("{}: duplicate key, already set at line {}; remove one of them", path,
                                                   first->second->key_place.line));
        continue;
      }
      if (prefix.empty() && entry.key == "include") continue;
      if (Field* field = find_field(fields, entry.key)) {
        value(entry, *field, path);
      } else {
        problems_.add(entry.key_place, fmt::format("{}: unknown key{}", path, unknown_key_hint(entry.key, fields, root_)));
      }
    }
  }

  void value(const Value& value, Field& field, const std::string& path) {
    if (field.is_section()) {
      // A section whose keys are all commented out is an empty section.
      if (value.kind != Value::Kind::kNull) map(value, field.children, path);
      return;
    }
    if (field.is_list()) {
      list(value, std::get<ListRef>(field.value), path);
      return;
    }
    if (auto* const* integers = std::get_if<std::vector<std::int64_t>*>(&field.value)) {
      numbers(value, field, **integers, path);
    } else if (auto* const* doubles = std::get_if<std::vector<double>*>(&field.value)) {
      numbers(value, field, **doubles, path);
    } else {
      scalar(value, field, path);
    }
  }

 private:
  void wrong(const Value& value, const Field& field, const std::string& path, const std::string& reason) {
    problems_.add(value.place, fmt::format("{}: {}; allowed: {}", path, reason, allowed_text(field)));
  }

  bool in_range(const Value& value, const Field& field, double number, const std::string& path) {
    if (number >= field.range.low && number <= field.range.high) return true;
    wrong(value, field, path, fmt::format("{} is out of range", value.text));
    return false;
  }

  /// Reads one number into `target`; false and a problem when it is none.
  template <class T>
  bool number(const Value& value, const Field& field, T& target, const std::string& path) {
    if (value.kind != Value::Kind::kScalar) {
      wrong(value, field, path, fmt::format("{} where a number is wanted", shown(value)));
      return false;
    }
    if (value.quoted) {
      wrong(value, field, path, fmt::format("\"{}\" is text: remove the quotes", shown(value)));
      return false;
    }
    Parsed<T> parsed;
    if constexpr (std::is_same_v<T, double>) {
      parsed = parse_number(value.text);
    } else {
      parsed = parse_integer(value.text);
    }
    if (!parsed.value) {
      wrong(value, field, path, parsed.reason);
      return false;
    }
    if (!in_range(value, field, static_cast<double>(*parsed.value), path)) return false;
    target = *parsed.value;
    return true;
  }

  template <class T>
  void numbers(const Value& value, const Field& field, std::vector<T>& target, const std::string& path) {
    if (value.kind != Value::Kind::kList) {
      wrong(value, field, path, fmt::format("{} where a list is wanted: [{}]", shown(value), shown(value)));
      return;
    }
    std::vector<T> read(value.items.size());
    for (std::size_t i = 0; i < read.size(); ++i) number(value.items[i], field, read[i], join_path(path, std::to_string(i)));
    target = std::move(read);
    record(path, value.place);
  }

  void list(const Value& value, ListRef& target, const std::string& path) {
    if (value.kind != Value::Kind::kList) {
      problems_.add(value.place, fmt::format("{}: {} where a list is wanted: lines that start with \"- \"", path, shown(value)));
      return;
    }
    target.resize(0);
    target.resize(value.items.size());
    record(path, value.place);
    for (std::size_t i = 0; i < value.items.size(); ++i) {
      Fields element = target.element(i);
      map(value.items[i], element, join_path(path, std::to_string(i)));
    }
  }

  void scalar(const Value& value, Field& field, const std::string& path) {
    bool set = false;
    if (auto* const* integer = std::get_if<std::int64_t*>(&field.value)) {
      set = number(value, field, **integer, path);
    } else if (auto* const* real = std::get_if<double*>(&field.value)) {
      set = number(value, field, **real, path);
    } else if (value.kind != Value::Kind::kScalar) {
      const bool wants_quotes = value.kind == Value::Kind::kNull && std::holds_alternative<std::string*>(field.value);
      wrong(value, field, path,
            fmt::format("{} where a value is wanted{}", shown(value), wants_quotes ? " (\"\" is empty text)" : ""));
    } else if (auto* const* text = std::get_if<std::string*>(&field.value)) {
      set = text_value(value, field, **text, path);
    } else if (auto* const* flag = std::get_if<bool*>(&field.value)) {
      set = boolean(value, field, **flag, path);
    } else {
      set = choice(value, field, path);
    }
    if (set) record(path, value.place);
  }

  bool text_value(const Value& value, const Field& field, std::string& target, const std::string& path) {
    if (!is_clean_text(value.text)) {
      wrong(value, field, path, "control characters or bytes that are not UTF-8");
      return false;
    }
    target = value.text;
    return true;
  }

  bool boolean(const Value& value, const Field& field, bool& target, const std::string& path) {
    const Parsed<bool> parsed = parse_bool(value.text);
    if (!parsed.value || value.quoted) {
      wrong(value, field, path, value.quoted ? fmt::format("\"{}\" is text: remove the quotes", shown(value)) : parsed.reason);
      return false;
    }
    target = *parsed.value;
    return true;
  }

  bool choice(const Value& value, const Field& field, const std::string& path) {
    for (std::size_t i = 0; i < field.choices.size(); ++i) {
      if (field.choices[i] != value.text) continue;
      std::get<ChoiceRef>(field.value).set(i);
      return true;
    }
    wrong(value, field, path, fmt::format("{} is not known{}", shown(value), nearest_hint(value.text, field.choices)));
    return false;
  }

  /// Remembers the place; a list or value set anew takes the places of its former elements with it.
  void record(const std::string& path, const Place& place) {
    const std::string below = path + ".";
    auto it = origins_.lower_bound(below);
    while (it != origins_.end() && it->first.starts_with(below)) it = origins_.erase(it);
    origins_[path] = place;
  }

  const Fields& root_;
  Origins& origins_;
  Problems& problems_;
};

}  // namespace

std::string unknown_key_hint(std::string_view name, const Fields& siblings, const Fields& root) {
  const std::vector<std::string_view> names = names_of(siblings);
  if (name == "<<") return " (merge keys are not read; use include)";
  if (name == "include") return " (include stands at the top level of a file only)";
  std::vector<std::string> paths;
  collect_paths(root, "", paths);
  for (const std::string& path : paths) {
    if (path.ends_with(fmt::format(".{}", name))) return fmt::format(" (did you mean {}?)", path);
  }
  const std::string near = nearest_hint(name, names);
  if (!near.empty()) return near;
  std::string list;
  for (const std::string_view allowed : names) list += fmt::format("{}{}", list.empty() ? "" : ", ", allowed);
  return fmt::format(" (allowed here: {})", list);
}

void apply_map(const Value& map, Fields& fields, const std::string& path, const Target& target) {
  Applier(target).map(map, fields, path);
}

void apply_value(const Value& value, Field& field, const std::string& path, const Target& target) {
  Applier(target).value(value, field, path);
}

}  // namespace hadal::config
