// Ranks as threads whose calls between each other can be falsified: what planted faults are made of. A fault sees each call of a rank
// with its group, its place in the step and its bytes, and may change what the rank gives and what it gets.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "comm/position.h"

namespace hadal::verify::test {

/// One call of one rank.
struct Call {
  comm::Op op = comm::Op::kBarrier;
  std::string_view group;    ///< "tp", "replicas", ...
  int rank = 0;              ///< of the group
  int size = 1;
  int peer = -1;             ///< of a message
  std::string_view phase;    ///< comm::Position
  int micro_batch = -1, layer = -1;
  DType dtype = DType::kU8;  ///< of sums
  const std::byte* memory = nullptr;  ///< where what is given lies on this rank
};

/// What is wrong on one rank; all may be empty.
struct Fault {
  /// Changes a copy of what this rank gives.
  std::function<void(const Call&, std::span<std::byte> given)> give;
  /// Changes what this rank gets, knowing what it gave (a sum, or the parts of all ranks, or a message).
  std::function<void(const Call&, std::span<const std::byte> given, std::span<std::byte> got)> get;
  /// True: this message changes places with the next one to the same rank.
  std::function<bool(const Call&)> swap_with_next;
};

/// As comm::run_local_group, with `faults[r]` on rank r.
void run_faulty_group(std::vector<Fault>& faults, const std::function<void(comm::Communicator&)>& body);

}  // namespace hadal::verify::test
