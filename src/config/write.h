// A configuration as canonical YAML: every key, in the order of config.h; reads back to the same values, bit for bit.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "config/config.h"
#include "core/hash.h"

namespace hadal {

std::string to_yaml(const Config& config);
/// With a comment behind each line for which `comment` gives text; called with the key's path, "data.sources.0.path".
std::string to_yaml(const Config& config, const std::function<std::string(std::string_view path)>& comment);

/// Hash of to_yaml: two runs with the same hash train the same thing, wherever their files and overrides stood.
Hash128 config_hash(const Config& config);

}  // namespace hadal
