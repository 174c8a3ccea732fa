// What a Communicator must do with device memory, whatever carries it (through the host or NCCL): the same as with host memory.
#pragma once

#include <string>

#include "comm/communicator.h"

namespace hadal::test {

/// Every call on device views against the same call on host views, in several groups of `world`. `host_order`: sums must have the
/// host's bits; else they must be as good, and the same in two runs. Empty when all is right. Called by all ranks together.
std::string check_device_exchanges(comm::Communicator& world, Device device, bool host_order);

}  // namespace hadal::test
