#include "cli/program.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/common_flags.h"
#include "comm/world.h"
#include "config/nearest.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::cli {
namespace {

std::string overview() {
  std::string text = fmt::format(
      "{}: trains DeepSeek-style language models (MoE, MLA, NSA, MTP) on CPUs and GPUs\n\n"
      "  hadal VERB ...          run a verb\n"
      "  hadal help VERB         what it does, its flags, examples\n\n",
      version_text());
  std::size_t width = 0;
  for (const Command& command : commands()) width = std::max(width, command.verb.size());
  for (const Command& command : commands()) text += fmt::format("  {:<{}}  {}\n", command.verb, width, command.summary);
  text += "\nExamples:\n";
  for (const Command& command : commands()) {
    text += fmt::format("{}\n", command.examples.substr(0, command.examples.find('\n')));
  }
  return text;
}

int run_verb(std::vector<std::string> words) {
  if (words.empty() || ((words[0] == "help" || words[0] == "--help" || words[0] == "-h") && words.size() == 1)) {
    throw Answered{overview()};
  }
  if (words[0] == "--version" || words[0] == "version") throw Answered{version_text() + "\n"};
  if (words[0] == "help" || words[0] == "--help" || words[0] == "-h") {
    words.erase(words.begin());
    words.resize(std::min<std::size_t>(words.size(), 2));
    words.emplace_back("--help");
  }
  const Command* command = find_command(words[0]);
  if (command == nullptr) {
    std::vector<std::string_view> verbs;
    for (const Command& row : commands()) verbs.push_back(row.verb);
    throw UserError("hadal {}: there is no such verb{}\n  `hadal help` lists them", words[0],
                    config::nearest_hint(words[0], verbs));
  }
  words.erase(words.begin());
  return command->run(words);
}

/// Runs the verb; everything thrown becomes a message on stderr and an exit code, and is noted in `threw`.
int run_caught(const std::vector<std::string>& words, bool& threw) {
  try {
    threw = true;
    const int code = run_verb(words);
    threw = false;
    return code;
  } catch (const Answered& answer) {
    std::fputs(answer.text.c_str(), stdout);
    return static_cast<int>(ExitCode::kDone);
  } catch (const Error& error) {
    log_error("{}", error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    log_error("out of memory: the system refused an allocation; use a smaller model, batch or sequence, or fewer ranks here");
    return static_cast<int>(ExitCode::kIo);
  } catch (const std::filesystem::filesystem_error& error) {
    log_error("{}", error.what());
    return static_cast<int>(ExitCode::kIo);
  } catch (const std::exception& error) {
    log_error("{} (this is a bug in Hadal: please report it with the command line)", error.what());
    return static_cast<int>(ExitCode::kBug);
  }
}

}  // namespace

int run_program(int argc, const char* const* argv) {
  bool threw = false;
  const int code = run_caught(std::vector<std::string>(argv + std::min(argc, 1), argv + argc), threw);
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!flushed) log_error("stdout cannot be written (disk full?)");
  if (threw && comm::joined_others()) comm::abort_all(code);
  return flushed || code != 0 ? code : static_cast<int>(ExitCode::kIo);
}

}  // namespace hadal::cli
