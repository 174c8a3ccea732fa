// The world of this process: one rank, or the ranks that a launcher started. MPI is started here and nowhere else, and only
// when a launcher's variable is present: a plain process, `--help` and `--version` never touch it.
//
//   auto world = comm::init_from_environment();
//   ...
//   return comm::finish(std::move(world), exit_code);
#pragma once

#include <memory>
#include <string_view>

#include "comm/communicator.h"

namespace hadal::comm {

/// Joins the other ranks. UserError on the singleton trap (launcher.h) unless HADAL_ALLOW_SINGLETON=1. Once per process.
std::unique_ptr<Communicator> init_from_environment();

/// Ends the job in good order, after everything is written and synced: barrier, MPI_Finalize, and then the code that this
/// process must return: on rank 0 the largest `exit_code` of all ranks, on the others 0. mpirun kills the rest as soon as one
/// rank returns non-zero, even after MPI_Finalize, hence the single voice (spec/interop.md 10).
int finish(std::unique_ptr<Communicator> world, int exit_code);

/// True between init_from_environment and finish, in a process that has joined others through MPI.
bool joined_others();

/// Says why this process ends, and returns the code that it must return. Among ranks that fail at the same time (each of them
/// refuses the same config key) the lowest one speaks for those who have the same to say; a rank that fails alone, or for a reason
/// of its own, is always heard, if need be after two seconds. When all ranks refuse bad input they leave in good order, rank 0 with
/// the code and the others with 0, and no launcher has anything to add; everything else ends all ranks at once.
int fail(std::string_view message, int exit_code);

/// Before fail(), for a rank whose error comes ahead of init_from_environment: starts MPI where a launcher announced other ranks,
/// so that they can agree on who speaks. Only for a program whose other ranks start MPI too.
void join_to_fail();

/// Ends all ranks at once after a fatal error on this one; `exit_code` becomes the launcher's. Does not return. Without MPI it
/// leaves by std::_Exit.
[[noreturn]] void abort_all(int exit_code);

}  // namespace hadal::comm
