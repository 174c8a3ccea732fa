// hadal config show | explain | schema
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "config/describe.h"
#include "config/inert.h"
#include "config/json.h"
#include "config/load.h"
#include "config/write.h"
#include "core/log.h"

namespace hadal::cli {
namespace {

struct ShowArguments {
  ConfigArguments config;
  bool provenance = false;
  OutputFlags output;
};

/// Origin of the key, or of the list that holds it.
std::string origin_of(const LoadedConfig& loaded, std::string_view path) {
  const auto found = loaded.origins.find(std::string(path));
  return found == loaded.origins.end() ? "default" : found->second;
}

void show(const ShowArguments& arguments) {
  const LoadedConfig loaded = load_config(arguments.config.path, arguments.config.overrides);
  const std::vector<config::InertKey> inert = config::inert_keys(loaded.config);
  const auto comment = [&](std::string_view path) {
    std::string text = arguments.provenance ? origin_of(loaded, path) : "";
    const std::string_view reason = config::inert_reason(inert, path);
    if (!reason.empty()) text += fmt::format("{}inert: {}", text.empty() ? "" : "; ", reason);
    return text;
  };
  if (arguments.output.json_path != "-") std::fputs(to_yaml(loaded.config, comment).c_str(), stdout);
  write_figures(arguments.output, to_json(loaded.config));
  for (const std::string& sentence : loaded.inert) log_warning("{}", sentence);
}

}  // namespace

int config_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.require_subcommand(1);
  ShowArguments show_arguments;
  CLI::App* show_app = app.add_subcommand("show", "the resolved config, every key; inert keys are marked");
  add_config_arguments(*show_app, show_arguments.config);
  show_app->add_flag("--provenance", show_arguments.provenance,
                     "where each value came from: file:line:column, command line, default");
  add_output_flags(*show_app, show_arguments.output);
  std::string key;
  CLI::App* explain_app = app.add_subcommand("explain", "one key or section: meaning, values, default");
  explain_app->add_option("KEY", key, "e.g. optim.lr or model.moe")->required();
  bool markdown = false;
  CLI::App* schema_app = app.add_subcommand("schema", "all keys as JSON Schema");
  schema_app->add_flag("--markdown", markdown, "the reference page instead");
  parse_arguments(app, "config", arguments);

  if (show_app->parsed()) {
    show(show_arguments);
  } else if (explain_app->parsed()) {
    std::fputs(config::explain(key).c_str(), stdout);
  } else {
    std::fputs((markdown ? config::markdown_reference() : config::json_schema()).c_str(), stdout);
  }
  return 0;
}

}  // namespace hadal::cli
