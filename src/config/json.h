// A configuration as JSON, for scripts.
#pragma once

#include <string>

#include "config/config.h"

namespace hadal {

/// Every key, in the order of config.h, numbers as numbers; indented, without a final newline.
std::string to_json(const Config& config);

}  // namespace hadal
