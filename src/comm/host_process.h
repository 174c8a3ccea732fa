// Processes of this host as /proc shows them: is a rank still there, does it run, is it stopped?
#pragma once

#include <cstdint>
#include <string>

namespace hadal::comm {

/// A process for as long as it lives: a pid alone may be used again.
struct HostProcess {
  std::string host;  ///< host name and pid namespace: pids mean something where both are equal
  std::int64_t pid = 0;
  std::uint64_t start = 0;  ///< clock ticks after boot
};

HostProcess this_process();

enum class ProcessState {
  kRuns,
  kHeld,     ///< by a debugger: somebody is looking
  kStopped,  ///< by SIGSTOP or SIGTSTP
  kGone,     ///< ended, or only its entry waits to be collected
};

/// Of a process of this host and pid namespace.
ProcessState state_of(const HostProcess& process);

}  // namespace hadal::comm
