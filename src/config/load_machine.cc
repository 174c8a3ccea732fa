#include "config/load_machine.h"

#include <fmt/core.h>

#include <array>
#include <memory>
#include <utility>

#include "config/apply.h"
#include "core/file.h"

namespace hadal {
namespace {

/// Without these there is nothing to divide by.
constexpr std::array kRequired{"name", "memory_gib", "memory_bandwidth", "link.intra", "link.inter"};

void check(const MachineSection& machine, const config::Origins& origins, const config::Place& file, config::Problems& problems) {
  for (const char* key : kRequired) {
    if (!origins.contains(key)) problems.add(file, fmt::format("{} is missing", key));
  }
  const bool bf16 = machine.precision == MachinePrecision::kBf16;
  if (bf16 ? machine.peak.bf16 <= 0 : machine.peak.f32 <= 0 && machine.peak.f64 <= 0) {
    problems.add(file,
                 fmt::format("peak.{} is missing: precision {} computes in it", bf16 ? "bf16" : "f32", bf16 ? "bf16" : "config"));
  }
  if (machine.reserve_gib >= machine.memory_gib && origins.contains("memory_gib")) {
    const auto at = origins.find("reserve_gib");
    problems.add(at == origins.end() ? file : at->second,
                 fmt::format("reserve_gib {} must be below memory_gib {}", machine.reserve_gib, machine.memory_gib));
  }
}

}  // namespace

MachineSection load_machine(const std::filesystem::path& path) {
  return load_machine_text(read_file(path, config::kMaxYamlBytes), path.string());
}

MachineSection load_machine_text(const std::string& text, const std::string& name) {
  MachineSection machine;
  config::Fields fields = config::bind(machine);
  config::Origins origins;
  config::Problems problems;
  const auto source = std::make_shared<const config::Source>(config::Source{name, text, true});
  const config::Value root = config::parse_yaml(source, problems);
  for (const config::Value& entry : root.items) {
    if (entry.key == "include") problems.add(entry.key_place, "include: a machine file stands alone");
  }
  config::apply_map(root, fields, "", {fields, origins, problems});
  if (!problems.empty()) problems.raise();
  check(machine, origins, {source, 1, 1}, problems);
  if (!problems.empty()) problems.raise();
  return machine;
}

}  // namespace hadal
