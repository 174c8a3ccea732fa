// hadal plan CONFIG: what a config costs on a number of ranks of a machine, and the best layouts, without launching anything.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/terminal.h"
#include "config/load.h"
#include "core/log.h"
#include "plan/forecast_json.h"
#include "plan/machines.h"
#include "plan/print.h"

namespace hadal::cli {
namespace {

using Json = nlohmann::ordered_json;

Json search_json(const std::vector<plan::Candidate>& candidates) {
  Json list = Json::array();
  for (const plan::Candidate& c : candidates) {
    const ParallelSection& p = c.parallel;
    list.push_back({{"pp", p.pp},
                    {"tp", p.tp},
                    {"cp", p.cp},
                    {"ep", p.ep},
                    {"etp", p.etp},
                    {"schedule", plan::schedule_text(p.schedule)},
                    {"chunks", p.chunks},
                    {"ranks_per_node", p.ranks_per_node},
                    {"micro_batch", c.micro_batch},
                    {"step_ms", 1e3 * c.step_s},
                    {"tokens_per_s_per_gpu", c.tokens_per_s_per_rank},
                    {"bubble_share", c.bubble_share},
                    {"peak_bytes", c.peak_bytes}});
  }
  return list;
}

}  // namespace

int plan_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  ConfigArguments config_arguments;
  OutputFlags output;
  std::string machine = "cpu";
  std::int64_t ranks = 0, search_ranks = 0;
  std::size_t count = 10;
  plan::ForecastOptions options;
  add_config_arguments(app, config_arguments);
  add_output_flags(app, output);
  app.add_option("--ranks", ranks, "ranks to run on (default: as many as pp, cp, tp, ep and etp ask for)")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--machine", machine, "cpu, h100, h200, h800, or a YAML file like those in configs/machine");
  app.add_option("--search", search_ranks, "the best layouts on so many ranks within memory, instead of the config's own")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--top", count, "with --search: how many layouts")->check(CLI::Range(1, 1000));
  app.add_option("--imbalance", options.expert_imbalance, "rows at the busiest rank of an expert group over the mean")
      ->check(CLI::Range(1.0, 100.0));
  app.add_option("--threads", options.threads, "threads per CPU rank")->check(CLI::Range(1, 1024));
  parse_arguments(app, "plan", arguments);

  const LoadedConfig loaded = load_config(config_arguments.path, config_arguments.overrides);
  for (const std::string& sentence : loaded.inert) log_warning("{}", sentence);
  const Config& config = loaded.config;
  options.machine = plan::find_machine(machine);
  if (search_ranks > 0) {
    const std::vector<plan::Candidate> candidates = plan::search(config, search_ranks, options, count);
    if (output.json_path != "-") std::fputs(plan::describe(candidates, search_ranks, options).c_str(), stdout);
    write_figures(
        output,
        Json{{"machine", options.machine.name}, {"num_ranks", search_ranks}, {"layouts", search_json(candidates)}}.dump(2));
    return 0;
  }
  const plan::Forecast forecast = plan::forecast(config, ranks > 0 ? ranks : plan::smallest_num_ranks(config.parallel), options);
  if (output.json_path != "-") {
    std::fputs(plan::describe(config, forecast, options, {.width = 150, .colour = stdout_is_terminal()}).c_str(), stdout);
  }
  write_figures(output, plan::forecast_json(forecast, options));
  return 0;
}

}  // namespace hadal::cli
