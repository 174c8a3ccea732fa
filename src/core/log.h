// Messages for people, on stderr. Results go to stdout by the commands themselves.
// Under a launcher each line carries the rank; the logger is told its rank, it never asks (no MPI below comm).
#pragma once

#include <fmt/core.h>

#include <string_view>
#include <utility>

namespace hadal {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Lines below `level` are dropped.
void set_log_level(LogLevel level);
/// Ranks other than 0 print warnings and errors only.
void set_log_rank(int rank, int num_ranks);
/// What set_log_rank was told; 0 before.
int log_rank();
void log_message(LogLevel level, std::string_view message);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace hadal
