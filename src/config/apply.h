// Values onto fields: types, ranges, unknown and duplicate keys. Every error is collected; every key set is recorded.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "config/binding.h"
#include "config/problems.h"
#include "config/yaml_document.h"

namespace hadal::config {

/// Where each key that somebody set got its present value: "optim.lr", "data.sources.0.path" -> place.
using Origins = std::map<std::string, Place>;

/// What values are applied to, and where that is recorded.
struct Target {
  const Fields& root;  ///< all keys, for hints
  Origins& origins;
  Problems& problems;
};

/// Sets the keys of `map` in `fields`, which stand at `path` ("" at the top level, where `include` is left to the loader).
/// Maps merge with what is there, lists replace it.
void apply_map(const Value& map, Fields& fields, const std::string& path, const Target& target);
void apply_value(const Value& value, Field& field, const std::string& path, const Target& target);

/// What to write instead of the unknown key `name`: the same name in another section, a sibling that is near, else all that
/// is allowed here. Starts with a blank and stands in parentheses.
std::string unknown_key_hint(std::string_view name, const Fields& siblings, const Fields& root);

}  // namespace hadal::config
