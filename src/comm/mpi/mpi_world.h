// Ranks under mpirun or srun. mpi.h stays in the source file. Called by comm/world.cc alone.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace hadal::comm::mpi {

/// MPI_Init_thread(FUNNELED).
void start();
/// Between start and end.
bool running();
int world_size();
/// All ranks (mpi_transport.h).
std::unique_ptr<Communicator> make_world();
/// MPI_Finalize; every communicator is gone by then.
void end();
[[noreturn]] void abort(int exit_code);
/// "Open MPI v4.1.4 ..." of the library that is linked; needs no start().
std::string library_version();

}  // namespace hadal::comm::mpi
