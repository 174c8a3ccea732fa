// The one table of verbs. A command is a file <verb>_command.cc with one function, and one row in commands.cc.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::cli {

/// Arguments after the verb. Returns the process exit code; throws hadal::Error for everything that goes wrong.
using CommandFunction = int (*)(const std::vector<std::string>& arguments);

struct Command {
  std::string_view verb;     ///< "train"; two words ("data build") are one function that looks at its first argument
  std::string_view summary;  ///< one line of `hadal help`
  CommandFunction run;
};

std::span<const Command> commands();
/// Finds the verb, runs it, turns exceptions into messages on stderr and exit codes.
int run_program(int argc, const char* const* argv);

}  // namespace hadal::cli
