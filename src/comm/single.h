// The group of one rank: a plain process. Starts no MPI and costs nothing.
#pragma once

#include "comm/communicator.h"

namespace hadal::comm {

class SingleCommunicator final : public Communicator {
 public:
  SingleCommunicator() : Communicator(0, 1) {}
  using Communicator::broadcast;
  std::string description() const override { return "single"; }
  std::int64_t all_reduce_max(std::int64_t value) override { return value; }
  void broadcast(std::span<std::byte> bytes, int root) override;
  void barrier() override {}
  std::vector<std::string> all_gather(std::string_view bytes) override { return {std::string(bytes)}; }

 protected:
  void sum_in_place(void*, DType, std::int64_t) override {}
};

}  // namespace hadal::comm
