// A rank's ledger as plain values: of this process, or out of the file of another one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/host_process.h"
#include "comm/ledger.h"
#include "comm/operation.h"

namespace hadal::comm {

struct PositionText {
  std::string phase;
  int micro_batch = -1;
  int layer = -1;

  /// "backward of micro-batch 2, layer 5"; "" when nothing is known.
  std::string str() const;
};

struct CallSnapshot {
  Op op = Op::kBarrier;
  std::uint64_t group = 0;     ///< id
  std::uint64_t sequence = 0;  ///< from 1: collectives of the group, messages of one direction, peer and tag
  std::int64_t bytes = 0;
  int peer = -1;  ///< rank of the group
  int tag = -1;
  PositionText position;
  std::int64_t started_ns = 0;
  std::int64_t done_ns = 0;  ///< 0: under way
};

struct GroupSnapshot {
  std::uint64_t id = 0;
  std::string name;
  int size = 0;
  std::vector<int> members;  ///< world ranks, the first 64
  std::uint64_t entered = 0;
};

struct RankSnapshot {
  int rank = 0;
  int size = 1;
  HostProcess process;
  bool ended = false;     ///< has left in good order, or
  bool ends_job = false;  ///< to end all ranks
  std::uint64_t progress = 0;
  std::int64_t step = 0;
  PositionText position;
  std::optional<CallSnapshot> waiting;
  std::vector<GroupSnapshot> groups;
  std::vector<CallSnapshot> calls;  ///< the last 64, oldest first

  const GroupSnapshot* group(std::uint64_t id) const;
  /// "reduce_scatter #118 of dp {0 1 2 3}", "receive #5 (tag 3) from rank 2 of pp {0 2}": a call of this rank.
  std::string name_of(const CallSnapshot& call) const;
};

RankSnapshot snapshot_of(const LedgerMemory& memory);

/// The part that is cheap to look at often.
struct LedgerGlance {
  bool ended = false;
  bool ends_job = false;
  bool waiting = false;
  std::uint64_t heartbeat = 0;
  std::uint64_t progress = 0;
};
LedgerGlance glance_at(const LedgerMemory& memory);

/// The file of another rank (Ledger::move_to), mapped.
class LedgerFile {
 public:
  /// nullptr when there is none or it is something else.
  static std::unique_ptr<LedgerFile> open(const std::filesystem::path& file);
  ~LedgerFile();
  LedgerFile(const LedgerFile&) = delete;
  LedgerFile& operator=(const LedgerFile&) = delete;
  RankSnapshot snapshot() const { return snapshot_of(*memory_); }
  LedgerGlance glance() const { return glance_at(*memory_); }

 private:
  explicit LedgerFile(const LedgerMemory* memory) : memory_(memory) {}
  const LedgerMemory* memory_;
};

}  // namespace hadal::comm
