// A machine file for `hadal plan`, read as strictly as a run's configuration: every error with file:line:column.
#pragma once

#include <filesystem>
#include <string>

#include "config/machine_section.h"

namespace hadal {

/// UserError with everything that is wrong: unknown keys, types, ranges, keys without which nothing can be planned.
MachineSection load_machine(const std::filesystem::path& path);
/// The same from a text; `name` stands for the path in messages.
MachineSection load_machine_text(const std::string& text, const std::string& name);

}  // namespace hadal
