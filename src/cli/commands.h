// The one table of verbs. A command is a file <verb>_command.cc with one function (declared in command_functions.h) and
// one row in commands.cc; `hadal help` is made from the table.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/command_functions.h"

namespace hadal::cli {

struct Command {
  std::string_view verb;      ///< "train"; of "data build" the verb is "data", its function looks at the next word
  std::string_view summary;   ///< one line of `hadal help`
  std::string_view examples;  ///< whole command lines, one a line; shown by `hadal VERB --help`
  CommandFunction run;
  bool joins = false;  ///< under a launcher its ranks work together through MPI; the others' do not know of each other
};

std::span<const Command> commands();
/// The row of `verb`, or nullptr.
const Command* find_command(std::string_view verb);
/// "hadal 0.1.0".
std::string version_text();

}  // namespace hadal::cli
