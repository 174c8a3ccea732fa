#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "core/error.h"
#include "core/parallel_for.h"
#include "kernels/cpu/simd/simd.h"

namespace hadal::cli {
namespace {

struct Check {
  std::string name;
  bool ok = true;
  std::string found;
  std::string fix;
};

std::vector<Check> run_checks() {
  std::vector<Check> checks;
  checks.push_back({"cpu kernels", true, kernels::simd::name_of(kernels::simd::active_isa()), ""});
  checks.push_back({"threads", true, fmt::format("{} of {} available cores", num_threads(), available_cores()), ""});
  return checks;
}

}  // namespace

int doctor_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  OutputFlags output;
  add_output_flags(app, output);
  parse_arguments(app, "doctor", arguments);
  const std::vector<Check> checks = run_checks();
  bool ok = true;
  nlohmann::ordered_json figures = {{"checks", nlohmann::ordered_json::array()}};
  for (const Check& check : checks) {
    ok = ok && check.ok;
    figures["checks"].push_back({{"name", check.name}, {"ok", check.ok}, {"found", check.found}, {"fix", check.fix}});
    if (output.json_path == "-") continue;
    fmt::print("{:<4} {:<14} {}\n", check.ok ? "ok" : "MISS", check.name, check.found);
    if (!check.fix.empty()) fmt::print("     {:<14} fix: {}\n", "", check.fix);
  }
  write_figures(output, figures.dump(2));
  return static_cast<int>(ok ? ExitCode::kDone : ExitCode::kAnswerIsNo);
}

}  // namespace hadal::cli
