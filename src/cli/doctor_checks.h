// What `hadal doctor` looks at: one check per thing that a run depends on.
#pragma once

#include <string>
#include <vector>

namespace hadal::cli {

struct Check {
  std::string name;
  bool ok = true;  ///< false: a run needs it and it is not there
  std::string found;
  std::string fix;  ///< what to do; also given where things work, but not well
};

/// Checks of this process's machine: kernels, threads, memory, libraries, CUDA. Takes some 0.1 s (measures the CPU's peak).
std::vector<Check> machine_checks();

/// Launcher and MPI. `trap` is what starting MPI complained about, or empty; `world` describes the group that was joined.
Check mpi_check(const std::string& trap, const std::string& world);

}  // namespace hadal::cli
