// The present value of a leaf as YAML that reads back to the same value.
#pragma once

#include <string>

#include "config/binding.h"

namespace hadal::config {

/// "0.001", "true", "mla", "[0.8, 0.9]", "\"two words\"". Empty for sections and lists of sections.
std::string value_text(const Field& field);

}  // namespace hadal::config
