// How long a diagnosis (comm/diagnosis.h) must stand before the job is ended for it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "comm/diagnosis.h"

namespace hadal::train {

struct HangBounds {
  double proven_s = 25;  ///< a stopped rank, or ranks that wait for each other: time alone does not help
  double silent_s =
      600;  ///< a rank that runs but passes nothing that the ledger sees; 0: for ever. Five times as long in a save or restore
};

class HangClock {
 public:
  explicit HangClock(HangBounds bounds) : bounds_(bounds) {}

  /// `passed_s` since the last look. The diagnosis once the same ranks have been at fault, without any progress of theirs, for as
  /// long as its cause is borne; at once for a rank that is gone.
  std::optional<comm::Diagnosis> look(std::span<const comm::RankView> ranks, double passed_s);
  /// All is well.
  void reset() { stood_s_ = 0; }

 private:
  double bound_of(std::span<const comm::RankView> ranks, const comm::Diagnosis& diagnosis) const;

  HangBounds bounds_;
  double stood_s_ = 0;
  std::vector<std::uint64_t> last_;  ///< cause, culprits and their progress
};

/// The one rank of this host that reports and ends the job: the lowest that runs, of those that wait where the cause lies with
/// ranks that run. -1: none, or a rank has spoken already.
int speaker_of(std::span<const comm::RankView> ranks, const comm::Diagnosis& diagnosis);

}  // namespace hadal::train
