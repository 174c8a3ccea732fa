#include "cli/program.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <new>
#include <string>
#include <utility>
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

struct Outcome {
  int code = 0;
  std::string problem;  ///< what was thrown, as a message for stderr; empty when the verb returned
};

/// Runs the verb; everything thrown becomes a message and an exit code.
Outcome run_caught(const std::vector<std::string>& words) {
  const auto problem = [](ExitCode code, std::string text) { return Outcome{static_cast<int>(code), std::move(text)}; };
  try {
    return {run_verb(words), ""};
  } catch (const Answered& answer) {
    std::fputs(answer.text.c_str(), stdout);
    return {};
  } catch (const Error& error) {
    return problem(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return problem(ExitCode::kIo,
                   "out of memory: the system refused an allocation; use a smaller model, batch or sequence, or fewer ranks here");
  } catch (const std::filesystem::filesystem_error& error) {
    return problem(ExitCode::kIo, error.what());
  } catch (const std::exception& error) {
    return problem(ExitCode::kBug,
                   fmt::format("{} (this is a bug in Hadal: please report it with the command line)", error.what()));
  }
}

/// Do the ranks of this command line know of each other? Without a verb of ours all of them stop at the same word.
bool ranks_join(const std::vector<std::string>& words) {
  const Command* command = words.empty() ? nullptr : find_command(words[0]);
  return command == nullptr || command->joins;
}

}  // namespace

int run_program(int argc, const char* const* argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  const Outcome outcome = run_caught(words);
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!flushed) log_error("stdout cannot be written (disk full?)");
  if (!outcome.problem.empty()) {
    if (ranks_join(words)) comm::join_to_fail();
    return comm::fail(outcome.problem, outcome.code);
  }
  return flushed || outcome.code != 0 ? outcome.code : static_cast<int>(ExitCode::kIo);
}

}  // namespace hadal::cli
