// Progress of what this rank has under way: an operation of several stages (sums that are then handed on) moves on whenever this
// rank waits for anything, so that no order of waits can make ranks wait for each other.
#pragma once

#include <memory>
#include <vector>

namespace hadal::comm::mpi {

class Operation {
 public:
  virtual ~Operation() = default;
  /// Does what can be done without waiting; true when nothing is left to do.
  virtual bool advance() = 0;
};

/// Of the one thread of this process that calls MPI.
class Engine {
 public:
  /// Keeps the operation alive until it is done.
  void add(std::shared_ptr<Operation> operation) { operations_.push_back(std::move(operation)); }
  /// Advances everything that is under way, once.
  void progress();
  /// Returns when `operation`, which was added, is done. Polls for a short while, then yields the core between polls.
  void wait(const Operation& operation);
  /// Never advanced again, but kept: messages may still arrive for it.
  void abandon(const Operation& operation);

 private:
  std::vector<std::shared_ptr<Operation>> operations_;
  std::vector<std::shared_ptr<Operation>> abandoned_;
};

Engine& engine();

}  // namespace hadal::comm::mpi
