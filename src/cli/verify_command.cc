// hadal verify CONFIG: proves that layouts of this model equal one rank, gradient by gradient.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "config/load.h"
#include "core/error.h"
#include "verify/verify.h"

namespace hadal::cli {
namespace {

void print(const verify::LayoutResult& r, std::size_t done, std::size_t count) {
  std::printf("%3zu/%zu  %-4s  %-48s %9.1e  %5.1f s  %s\n", done, count, r.passed ? "ok" : "FAIL", r.name.c_str(), r.worst_error, r.seconds,
              r.passed ? "" : r.problem.empty() ? r.tensor.c_str() : r.problem.c_str());
  std::fflush(stdout);
}

}  // namespace

int verify_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  ConfigArguments config_arguments;
  OutputFlags output;
  verify::VerifyOptions options;
  add_config_arguments(app, config_arguments);
  add_output_flags(app, output);
  app.add_option("--ranks", options.ranks, "ranks to split over, threads of this process")->check(CLI::Range(2, 64))->capture_default_str();
  app.add_flag("--full", options.full, "every split of the ranks instead of a covering set");
  parse_arguments(app, "verify", arguments);

  const Config config = load_config(config_arguments.path, config_arguments.overrides).config;
  std::printf("%lld ranks against one, f64, on a small model of the same kind: worst relative difference of every loss, every gradient and\n"
              "every parameter after three steps; up to %.0e passes\n",
              static_cast<long long>(options.ranks), verify::kTolerance);
  const std::vector<verify::LayoutResult> results = verify::verify(config, options, print);
  nlohmann::ordered_json layouts = nlohmann::ordered_json::array();
  std::size_t failed = 0;
  for (const verify::LayoutResult& r : results) {
    failed += r.passed ? 0 : 1;
    layouts.push_back({{"name", r.name}, {"passed", r.passed}, {"worst_error", r.worst_error}, {"tensor", r.tensor}, {"problem", r.problem}});
  }
  write_figures(output, nlohmann::ordered_json{{"ranks", options.ranks}, {"layouts", layouts}}.dump(2));
  if (failed == 0) {
    std::printf("all %zu layouts equal one rank\n", results.size());
    return static_cast<int>(ExitCode::kDone);
  }
  std::printf("%zu of %zu layouts differ from one rank\n", failed, results.size());
  return static_cast<int>(ExitCode::kAnswerIsNo);
}

}  // namespace hadal::cli
