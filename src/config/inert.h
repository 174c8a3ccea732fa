// Keys that nothing reads under a given configuration, because the part they belong to is off.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace hadal::config {

/// A key or a whole section ("model.attention.nsa") and why it has no effect ("model.attention.sparse is none").
struct InertKey {
  std::string path;
  std::string reason;
};

/// All inert keys and sections, set by somebody or not.
std::vector<InertKey> inert_keys(const Config& config);

/// Why the key at `path` is inert, or empty: it is one of `inert` or lies inside one.
std::string_view inert_reason(const std::vector<InertKey>& inert, std::string_view path);

/// One sentence per inert group out of the keys in `origins` (key -> place), ready for a warning.
std::vector<std::string> describe_inert(const Config& config, const std::map<std::string, std::string>& origins);

}  // namespace hadal::config
