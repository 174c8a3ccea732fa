// The group of one rank: a plain process. Starts no MPI and costs nothing.
#pragma once

#include "comm/communicator.h"

namespace hadal::comm {

class SingleCommunicator final : public Communicator {
 public:
  SingleCommunicator() : Communicator(0, world_group(1), nullptr) {}
};

}  // namespace hadal::comm
