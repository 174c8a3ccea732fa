// Colours on a terminal, plain text in a pipe, under a launcher, with NO_COLOR or TERM=dumb.
#pragma once

#include <string>
#include <string_view>

namespace hadal::cli {

enum class Style { kGood, kBad, kDim, kStrong };

/// True when stdout is a terminal that people look at. Under a launcher it is not: mpirun gives each rank a pty even when its
/// own output goes to a file (spec/interop.md 10).
bool stdout_is_terminal();

/// `text` in `style` when stdout_is_terminal(), else as it is.
std::string styled_stdout(Style style, std::string_view text);

}  // namespace hadal::cli
