#include "plan/machines.h"

#include <vector>

#include "config/load_machine.h"
#include "config/nearest.h"
#include "core/error.h"

namespace hadal::plan {

MachineSection find_machine(const std::string& name_or_file) {
  std::vector<std::string_view> names;
  for (const MachineText& machine : machine_texts()) {
    if (machine.name == name_or_file)
      return load_machine_text(std::string(machine.yaml), fmt::format("configs/machine/{}.yaml", machine.name));
    names.push_back(machine.name);
  }
  if (name_or_file.find('/') != std::string::npos || name_or_file.ends_with(".yaml")) return load_machine(name_or_file);
  std::string known;
  for (const std::string_view name : names) known += fmt::format("{}{}", known.empty() ? "" : ", ", name);
  throw UserError("--machine {}: there is no such machine{}; known: {}, or a YAML file of the same form", name_or_file,
                  config::nearest_hint(name_or_file, names), known);
}

}  // namespace hadal::plan
