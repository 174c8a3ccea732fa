// Machines by name: the files of configs/machine, which are part of the program, or a file of the user's.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/machine_section.h"

namespace hadal::plan {

struct MachineText {
  std::string_view name;
  std::string_view yaml;
};
std::span<const MachineText> machine_texts();

/// `name_or_file`: a known name, else a path (with a slash, or ending in .yaml). UserError with the known names, or with what is
/// wrong in the file.
MachineSection find_machine(const std::string& name_or_file);

}  // namespace hadal::plan
