#include "comm/host_process.h"

#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <optional>
#include <sstream>

namespace hadal::comm {
namespace {

struct Stat {
  char state = '?';
  std::uint64_t start = 0;
};

/// "PID (any name) S ppid ..." of /proc/PID/stat; starttime is field 22.
std::optional<Stat> read_stat(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  Stat stat;
  std::string skipped;
  fields >> stat.state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> stat.start;
  return stat;
}

HostProcess read_this_process() {
  std::array<char, 64> name{};
  gethostname(name.data(), name.size() - 1);
  std::array<char, 64> space{};
  if (readlink("/proc/self/ns/pid", space.data(), space.size() - 1) < 0) space[0] = '\0';
  const std::int64_t pid = getpid();
  const std::optional<Stat> stat = read_stat(pid);
  return {.host = fmt::format("{} {}", name.data(), space.data()), .pid = pid, .start = stat ? stat->start : 0};
}

}  // namespace

HostProcess this_process() {
  static const HostProcess first = read_this_process();
  return first.pid == getpid() ? first : read_this_process();  // after a fork
}

ProcessState state_of(const HostProcess& process) {
  if (process.start == 0) return ProcessState::kRuns;  // without /proc there is nothing to tell
  const std::optional<Stat> stat = read_stat(process.pid);
  if (!stat) {
    // No entry, or none that could be read now (too many open files).
    const bool gone = kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH;
    return gone ? ProcessState::kGone : ProcessState::kRuns;
  }
  if (stat->start != process.start || stat->state == 'Z' || stat->state == 'X') return ProcessState::kGone;
  if (stat->state == 't') return ProcessState::kHeld;
  return stat->state == 'T' ? ProcessState::kStopped : ProcessState::kRuns;
}

}  // namespace hadal::comm
