// What every Communicator must do, checked on each kind: ranks as threads (tests/comm) and ranks under mpirun (tests/mpi).
#pragma once

#include <string>

#include "comm/communicator.h"

namespace hadal::test {

/// Runs every collective with values whose results are known bit by bit. Empty when all is right, else what was wrong. Called by
/// all ranks together.
std::string check_collectives(comm::Communicator& world);

}  // namespace hadal::test
