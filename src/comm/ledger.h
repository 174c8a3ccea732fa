// What a rank did and does with other ranks: the last 64 calls, the one it waits in, and where it is in its step. Kept by every
// Communicator of more than one rank (about 0.1 us a call), read by the watchdogs of the other ranks of the host and by whoever
// investigates the file after a crash (ledger_snapshot.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "comm/group.h"
#include "comm/operation.h"

namespace hadal::comm {

struct LedgerMemory;

/// One per rank, shared by its world and its groups; written by the rank's thread alone.
class Ledger {
 public:
  Ledger(int rank, int size);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// The ledger that was made by this thread last and still lives; Position writes there.
  static Ledger* of_this_thread();

  /// Moves into a new file, which replaces an older one of that name. Files are read in place by other processes. IoError.
  void move_to(const std::filesystem::path& file);

  /// A place for the group's counts; -1 when there is none left (its calls are recorded all the same).
  int add_group(const Group& group);
  void remove_group(int slot);

  /// A call begins: its number here. Of messages alone: `peer`, `tag`, and the how manieth to or from that peer with that tag it
  /// is.
  std::uint64_t begin(const Group& group, int slot, Op op, std::int64_t bytes, int peer = -1, int tag = -1,
                      std::uint64_t sequence = 0);
  /// The rank waits in it from here on.
  void wait(std::uint64_t number);
  void end(std::uint64_t number);

  void set_position(const char* phase, int micro_batch, int layer);
  void set_step(std::int64_t step);
  /// By the watchdog's thread, as a sign that the process runs.
  void beat();
  /// From here on the end of this rank is nobody's business; with `ends_job` nor is that of any other (this one has said why).
  void set_ended(bool ends_job = false);

  const LedgerMemory& memory() const { return *memory_; }
  /// Time that the rank's thread has spent in waits so far: communication that nothing hid. By that thread alone.
  double waited_seconds() const { return static_cast<double>(waited_ns_) * 1e-9; }

 private:
  LedgerMemory* memory_;
  std::int64_t waiting_since_ns_ = 0;
  std::int64_t waited_ns_ = 0;
  std::unique_ptr<LedgerMemory> own_;  ///< until move_to
};

/// A call in the ledger, from its begin to its destruction. Movable; an empty one writes nothing.
class LedgerCall {
 public:
  LedgerCall() = default;
  LedgerCall(Ledger& ledger, std::uint64_t number) : ledger_(&ledger), number_(number) {}
  ~LedgerCall() { end(); }
  LedgerCall(LedgerCall&& other) noexcept : ledger_(other.ledger_), number_(other.number_) { other.ledger_ = nullptr; }
  LedgerCall& operator=(LedgerCall&& other) noexcept;

  void wait() {
    if (ledger_ != nullptr) ledger_->wait(number_);
  }
  void end();

 private:
  Ledger* ledger_ = nullptr;
  std::uint64_t number_ = 0;
};

}  // namespace hadal::comm
