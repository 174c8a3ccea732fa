// What the environment says about the launcher, read before MPI is started (spec/interop.md 10).
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace hadal::comm {

struct Launcher {
  std::string variable;           ///< the variable that spoke, "OMPI_COMM_WORLD_SIZE"; empty: a plain process
  std::optional<int> rank;        ///< as announced
  std::optional<int> size;        ///< as announced
  std::optional<int> local_size;  ///< ranks of this job on this host

  bool present() const { return !variable.empty(); }
  /// Can TERM only mean that the job shall end? So it is for a process alone, and under Slurm's srun, which sends it for scancel,
  /// a time limit or a pre-emption, and ends the peers of a dead rank by KILL. mpirun sends it when a peer died.
  bool term_asks() const;
};

using GetVariable = std::function<const char*(const char* name)>;

/// Open MPI, PMIx, Slurm and PMI variables. Of Slurm, the step's count decides: SLURM_NTASKS is also set in the plain shell of
/// an allocation, where there is nobody to join.
Launcher detect_launcher(const GetVariable& get_variable);
/// The same from this process's environment.
Launcher detect_launcher();

/// The singleton trap: the launcher announced more ranks than MPI connected, so that each rank would train alone into the
/// same run directory. Empty when all is well, else what happened and what to do.
std::string singleton_trap(const Launcher& launcher, int mpi_size);

}  // namespace hadal::comm
