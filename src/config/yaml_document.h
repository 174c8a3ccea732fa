// YAML text to a tree of places and scalars: structure only, no types. A strict subset: one document, block and flow maps
// and lists, plain and quoted scalars; no anchors, aliases, tags, `<<`, tabs in indentation, or keys that are not scalars.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "config/problems.h"

namespace hadal::config {

/// Largest configuration file and override.
inline constexpr std::size_t kMaxYamlBytes = 1 << 20;
/// Deepest nesting of maps and lists.
inline constexpr std::size_t kMaxYamlDepth = 16;

struct Value {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  Place place;
  std::string text;     ///< scalar, as written, ${env:...} replaced (environment.h)
  bool quoted = false;  ///< scalar: in quotes or a block scalar, hence text whatever it looks like
  std::string key;      ///< child of a map: its key
  Place key_place;
  std::vector<Value> items;  ///< list elements, or the map's entries in file order (duplicates kept)
};

/// Parses the text of `source`. Whatever is not in the subset goes to `problems` with its place; the returned tree then
/// holds what could be read. Never throws for bad text. An empty text is an empty map.
Value parse_yaml(const std::shared_ptr<const Source>& source, Problems& problems);

}  // namespace hadal::config
