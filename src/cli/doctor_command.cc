// hadal doctor: alone, or under mpirun, where it also proves that the ranks find each other.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/doctor_checks.h"
#include "cli/terminal.h"
#include "comm/world.h"
#include "core/error.h"

namespace hadal::cli {
namespace {

void print(const std::vector<Check>& checks) {
  std::size_t width = 0;
  for (const Check& check : checks) width = std::max(width, check.name.size());
  for (const Check& check : checks) {
    const std::string mark = check.ok ? styled_stdout(Style::kGood, "ok     ") : styled_stdout(Style::kBad, "MISSING");
    fmt::print("{}  {:<{}}  {}\n", mark, check.name, width, check.found);
    std::istringstream fix(check.fix);
    const char* arrow = "-> ";
    for (std::string line; std::getline(fix, line); arrow = "   ") {
      line.erase(0, line.find_first_not_of(' '));
      fmt::print("         {:<{}}  {}\n", "", width, styled_stdout(Style::kDim, arrow + line));
    }
  }
}

std::string to_json(const std::vector<Check>& checks) {
  nlohmann::ordered_json figures = {{"checks", nlohmann::ordered_json::array()}};
  for (const Check& check : checks) {
    figures["checks"].push_back({{"name", check.name}, {"ok", check.ok}, {"found", check.found}, {"fix", check.fix}});
  }
  return figures.dump(2);
}

}  // namespace

int doctor_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  OutputFlags output;
  add_output_flags(app, output);
  parse_arguments(app, "doctor", arguments);

  std::string trap;
  std::unique_ptr<comm::Communicator> world;
  try {
    world = comm::init_from_environment();
  } catch (const UserError& error) {
    trap = error.what();
  }
  std::vector<Check> checks = machine_checks();
  const std::string group =
      world ? fmt::format("{} rank{}, {}", world->size(), world->size() == 1 ? "" : "s", world->description()) : "";
  checks.insert(checks.begin() + 4, mpi_check(trap, group));
  const bool ok = std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.ok; });
  if (!world || world->is_root()) {
    if (output.json_path != "-") print(checks);
    write_figures(output, to_json(checks));
  }
  const int code = static_cast<int>(ok ? ExitCode::kDone : ExitCode::kAnswerIsNo);
  return world ? comm::finish(std::move(world), code) : code;
}

}  // namespace hadal::cli
