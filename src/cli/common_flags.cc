#include "cli/common_flags.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "cli/commands.h"
#include "config/nearest.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace hadal::cli {
namespace {

/// Long flags of the application and of its chosen subcommands, for hints.
std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  for (const CLI::App* subcommand : app.get_subcommands()) {
    for (std::string& name : flag_names(*subcommand)) names.push_back(std::move(name));
  }
  return names;
}

/// What to try when a word was not understood.
std::string hint(const CLI::App& app, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    if (!word.starts_with("-")) continue;
    if (word.starts_with("--") && name.find('.') != std::string::npos) {
      return fmt::format("; config overrides are bare: {}", word.substr(2));
    }
    const std::vector<std::string> names = flag_names(app);
    return config::nearest_hint(name, std::vector<std::string_view>(names.begin(), names.end()));
  }
  return "";
}

std::vector<std::string_view> subcommand_names(const CLI::App& app) {
  std::vector<std::string_view> names;
  for (const CLI::App* subcommand : app.get_subcommands({})) names.push_back(subcommand->get_name());
  return names;
}

/// For a verb with subcommands: refuses a first word that is none of them, before CLI11 does it with fewer words.
void check_subcommand(const CLI::App& app, std::string_view verb, const std::vector<std::string>& arguments) {
  const std::vector<std::string_view> names = subcommand_names(app);
  if (names.empty() || (!arguments.empty() && arguments[0].starts_with("-"))) return;
  if (!arguments.empty() && std::find(names.begin(), names.end(), arguments[0]) != names.end()) return;
  std::string list;
  for (const std::string_view name : names) list += fmt::format("{}{}", list.empty() ? "" : ", ", name);
  const std::string given = arguments.empty() ? "a word is missing" : fmt::format("there is no {}", arguments[0]);
  throw UserError("hadal {}: {}{}; allowed: {}\n  `hadal {} --help` shows examples", verb, given,
                  arguments.empty() ? "" : config::nearest_hint(arguments[0], names), list, verb);
}

/// The lines of `examples` that use the subcommand `name`.
std::string examples_of(std::string_view examples, std::string_view verb, std::string_view name) {
  const std::string wanted = fmt::format("hadal {} {} ", verb, name);
  std::string chosen;
  while (!examples.empty()) {
    const std::string_view line = examples.substr(0, examples.find('\n'));
    if (fmt::format("{} ", line).find(wanted) != std::string::npos) chosen += fmt::format("{}\n", line);
    examples.remove_prefix(std::min(line.size() + 1, examples.size()));
  }
  return chosen;
}

void add_common(CLI::App& app, std::string_view examples) {
  app.set_version_flag("--version", version_text(), "print the version");
  app.set_help_flag("-h,--help", "print this text");
  if (!examples.empty()) app.footer(fmt::format("Examples:\n{}", examples));
}

bool wants_quiet(const CLI::App& app) {
  const CLI::Option* quiet = app.get_option_no_throw("--quiet");
  if (quiet != nullptr && quiet->count() > 0) return true;
  for (const CLI::App* subcommand : app.get_subcommands()) {
    if (wants_quiet(*subcommand)) return true;
  }
  return false;
}

}  // namespace

void add_config_arguments(CLI::App& app, ConfigArguments& arguments) {
  app.add_option("CONFIG", arguments.path, "YAML file, e.g. configs/run/quickstart.yaml")->required();
  app.add_option("OVERRIDES", arguments.overrides, "section.key=value, any number; data.sources.0.weight=0.7 for lists");
}

void add_quiet_flag(CLI::App& app, OutputFlags& flags) {
  app.add_flag("--quiet", flags.quiet, "no progress and no notes on stderr; warnings and errors stay");
}

void add_output_flags(CLI::App& app, OutputFlags& flags) {
  add_quiet_flag(app, flags);
  app.add_option("--json", flags.json_path, "write the figures as JSON to FILE; - is stdout")->type_name("FILE");
}

void parse_arguments(CLI::App& app, std::string_view verb, const std::vector<std::string>& arguments) {
  const Command* command = find_command(verb);
  const std::string_view examples = command == nullptr ? "" : command->examples;
  app.name(fmt::format("hadal {}", verb));
  if (command != nullptr) app.description(std::string(command->summary));
  add_common(app, examples);
  for (CLI::App* subcommand : app.get_subcommands({})) {
    add_common(*subcommand, examples_of(examples, verb, subcommand->get_name()));
  }
  check_subcommand(app, verb, arguments);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    throw Answered{app.help()};
  } catch (const CLI::CallForAllHelp&) {
    throw Answered{app.help("", CLI::AppFormatMode::All)};
  } catch (const CLI::CallForVersion&) {
    throw Answered{version_text() + "\n"};
  } catch (const CLI::ExtrasError& failure) {
    throw UserError("hadal {}: {}{}\n  `hadal {} --help` shows what is allowed", verb, failure.what(),
                    hint(app, app.remaining(true)), verb);
  } catch (const CLI::ParseError& failure) {
    throw UserError("hadal {}: {}\n  `hadal {} --help` shows what is allowed", verb, failure.what(), verb);
  }
  if (wants_quiet(app)) set_log_level(LogLevel::kWarning);
}

void write_figures(const OutputFlags& flags, std::string_view json_text) {
  if (flags.json_path.empty()) return;
  const std::string text = fmt::format("{}\n", json_text);
  if (flags.json_path == "-") {
    std::fputs(text.c_str(), stdout);
  } else {
    write_file_atomically(flags.json_path, text);
  }
}

}  // namespace hadal::cli
