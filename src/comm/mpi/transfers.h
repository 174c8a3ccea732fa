// MPI requests that are waited for together, as an operation of the engine. MPI communicators travel as the integers of MPI's
// Fortran binding, so that no header needs mpi.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "comm/handle.h"
#include "comm/mpi/engine.h"

namespace hadal::comm::mpi {

class Transfers {
 public:
  explicit Transfers(int fortran_comm);
  ~Transfers();
  Transfers(Transfers&&) noexcept;
  Transfers& operator=(Transfers&&) noexcept;

  /// Messages of any length (MPI counts are ints: long ones are cut); they match in order per pair and tag.
  void send(std::span<const std::byte> bytes, int to, int tag);
  void receive(std::span<std::byte> bytes, int from, int tag);
  /// MPI's own collectives, in the same order on all ranks.
  void broadcast(std::span<std::byte> bytes, int root);
  void barrier();
  void all_reduce_max(std::int64_t& value);
  /// `length` bytes of every rank, by rank.
  void all_gather(const void* mine, void* all, int length);
  void all_gather(std::span<const std::byte> mine, std::byte* all, std::span<const int> lengths, std::span<const int> offsets);

  /// True when all are complete. ContractError when a message had another length than its receiver expects.
  bool done();

 private:
  struct Requests;
  std::unique_ptr<Requests> requests_;
};

/// Called when all transfers are complete; returns those of the next stage, if there is one.
using NextStage = std::function<std::optional<Transfers>()>;

/// Under way: the engine advances it whenever this rank waits.
std::unique_ptr<Work> start_transfers(Transfers transfers, NextStage next = nullptr);

}  // namespace hadal::comm::mpi
