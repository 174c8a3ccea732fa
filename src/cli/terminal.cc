#include "cli/terminal.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>

#include "comm/launcher.h"

namespace hadal::cli {
namespace {

bool decide() {
  const char* term = std::getenv("TERM");
  const char* no_color = std::getenv("NO_COLOR");
  const bool wanted = (no_color == nullptr || *no_color == '\0') && (term == nullptr || std::string_view(term) != "dumb");
  return wanted && ::isatty(STDOUT_FILENO) == 1 && !comm::detect_launcher().present();
}

}  // namespace

bool stdout_is_terminal() {
  static const bool is_terminal = decide();
  return is_terminal;
}

std::string styled_stdout(Style style, std::string_view text) {
  if (!stdout_is_terminal()) return std::string(text);
  const char* code = style == Style::kGood ? "32" : style == Style::kBad ? "1;31" : style == Style::kDim ? "2" : "1";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

}  // namespace hadal::cli
