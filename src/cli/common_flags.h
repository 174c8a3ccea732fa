// What the commands' flags have in common: parsing with help by example, CONFIG with overrides, figures as JSON.
//
//   int bench_command(const std::vector<std::string>& arguments) {
//     CLI::App app;
//     ConfigArguments config;
//     OutputFlags output;
//     add_config_arguments(app, config);
//     add_output_flags(app, output);
//     parse_arguments(app, "bench", arguments);
//     ...
//     write_figures(output, figures.dump());
//     return 0;
//   }
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace hadal::cli {

/// CONFIG [section.key=value...]
struct ConfigArguments {
  std::string path;
  std::vector<std::string> overrides;
};

struct OutputFlags {
  bool quiet = false;     ///< no progress, no notes
  std::string json_path;  ///< empty: no figures wanted; "-": stdout
};

void add_config_arguments(CLI::App& app, ConfigArguments& arguments);
/// --quiet and --json FILE.
void add_output_flags(CLI::App& app, OutputFlags& flags);
/// --quiet alone, for commands without figures.
void add_quiet_flag(CLI::App& app, OutputFlags& flags);

/// Parses the words after the verb. Summary, examples, --help and --version come from the table of verbs.
/// Throws Answered (help or version asked for) or UserError naming the flag, what is allowed and the nearest spelling.
void parse_arguments(CLI::App& app, std::string_view verb, const std::vector<std::string>& arguments);

/// Writes machine-readable figures where --json says (a file is written whole or not at all); nothing without --json.
/// With --quiet, messages below warnings are dropped from the moment the flags are parsed.
void write_figures(const OutputFlags& flags, std::string_view json_text);

/// --help or --version: `text` goes to stdout and the program ends with 0. Not an error, hence not a hadal::Error.
struct Answered {
  std::string text;
};

}  // namespace hadal::cli
