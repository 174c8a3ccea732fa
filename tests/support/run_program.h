// Runs a command line through the shell: exit code, stdout and stderr apart.
#pragma once

#include <string>

namespace hadal::test {

struct ProgramResult {
  int exit_code = -1;
  std::string out;
  std::string err;
};

/// `arguments` follow the program under test (HADAL_BINARY) in a shell line; `environment` are assignments before it. Launcher
/// variables of the calling process are taken away.
ProgramResult run_hadal(const std::string& arguments, const std::string& environment = "");

}  // namespace hadal::test
