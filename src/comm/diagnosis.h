// Who keeps the others waiting, and in which call: from the ledgers of all ranks that can be seen.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/host_process.h"
#include "comm/ledger_snapshot.h"

namespace hadal::comm {

struct RankView {
  RankSnapshot ledger;
  ProcessState state = ProcessState::kRuns;
};

struct Diagnosis {
  enum class Cause {
    kGone,      ///< the process of a rank has ended
    kStopped,   ///< the process of a rank is stopped
    kDeadlock,  ///< ranks wait for each other, whatever the others do
    kAbsent,    ///< a rank that runs has not come to the call
    kUnseen,    ///< everybody who can be seen has come: what is missing is on another host, or in the network
  };
  Cause cause = Cause::kUnseen;
  std::vector<int> culprits;  ///< world ranks, ascending; empty for kUnseen
  /// One sentence: "rank 3 is stopped in backward of micro-batch 2, layer 5 (step 7); ranks 0 1 2 wait for it in reduce_scatter
  /// #118 of dp {0 1 2 3}".
  std::string sentence;
};

/// Empty when no rank waits and all run. Deadlock and absence are how things stand now: a moment later the call may go on, so the
/// caller asks again after a while and compares RankSnapshot::progress.
std::optional<Diagnosis> diagnose(std::span<const RankView> ranks);

}  // namespace hadal::comm
