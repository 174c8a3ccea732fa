// What groups, started collectives and messages must do, checked on each kind of Communicator (communicator_checks.h calls it).
#pragma once

#include <string>

#include "comm/communicator.h"

namespace hadal::test {

/// On `world` and on several groups inside it. Empty when all is right, else what was wrong. Called by all ranks together.
std::string check_exchanges(comm::Communicator& world);

/// Messages longer than one MPI message may be, between ranks 0 and 1: `bytes` of them.
std::string check_long_message(comm::Communicator& world, std::int64_t bytes);

}  // namespace hadal::test
