// Command-line overrides: section.key=value.
#pragma once

#include <string>

#include "config/apply.h"

namespace hadal::config {

/// One override, "optim.lr=1e-3"; list elements by index, "data.sources.0.weight=0.7". Text and numbers are taken as they
/// stand after the =; lists and sections are YAML in flow form, "optim.schedule.milestones=[0.6, 0.8]".
void apply_override(const std::string& text, Fields& fields, const Target& target);

}  // namespace hadal::config
