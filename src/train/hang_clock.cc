#include "train/hang_clock.h"

#include <algorithm>
#include <limits>

namespace hadal::train {
namespace {

using Cause = comm::Diagnosis::Cause;

/// A checkpoint may take minutes on a slow disk, and only the rank that writes knows how far it is.
constexpr double kSlowPhase = 5;

bool is_culprit(const comm::Diagnosis& diagnosis, int rank) { return std::ranges::count(diagnosis.culprits, rank) > 0; }

/// Changes whenever somebody at fault has moved; of nobody in particular, whenever anybody has.
std::vector<std::uint64_t> standing_of(std::span<const comm::RankView> ranks, const comm::Diagnosis& diagnosis) {
  std::vector<std::uint64_t> standing{static_cast<std::uint64_t>(diagnosis.cause)};
  for (const comm::RankView& view : ranks) {
    if (!diagnosis.culprits.empty() && !is_culprit(diagnosis, view.ledger.rank)) continue;
    standing.push_back(static_cast<std::uint64_t>(view.ledger.rank));
    standing.push_back(view.ledger.progress);
  }
  return standing;
}

}  // namespace

double HangClock::bound_of(std::span<const comm::RankView> ranks, const comm::Diagnosis& diagnosis) const {
  if (diagnosis.cause == Cause::kGone) return 0;
  if (diagnosis.cause == Cause::kStopped || diagnosis.cause == Cause::kDeadlock) return bounds_.proven_s;
  if (bounds_.silent_s <= 0) return std::numeric_limits<double>::infinity();
  const bool slow = std::ranges::any_of(ranks, [&](const comm::RankView& view) {
    const std::string& phase = view.ledger.position.phase;
    return is_culprit(diagnosis, view.ledger.rank) && (phase == "save" || phase == "restore");
  });
  return slow ? kSlowPhase * bounds_.silent_s : bounds_.silent_s;
}

std::optional<comm::Diagnosis> HangClock::look(std::span<const comm::RankView> ranks, double passed_s) {
  std::optional<comm::Diagnosis> diagnosis = comm::diagnose(ranks);
  if (!diagnosis) {
    reset();
    return std::nullopt;
  }
  std::vector<std::uint64_t> standing = standing_of(ranks, *diagnosis);
  stood_s_ = standing == last_ ? stood_s_ + passed_s : 0;
  last_ = std::move(standing);
  return stood_s_ >= bound_of(ranks, *diagnosis) ? diagnosis : std::nullopt;
}

int speaker_of(std::span<const comm::RankView> ranks, const comm::Diagnosis& diagnosis) {
  const bool of_processes = diagnosis.cause == Cause::kGone || diagnosis.cause == Cause::kStopped;
  int speaker = -1;
  for (const comm::RankView& view : ranks) {
    if (view.ledger.ends_job) return -1;
    const bool able = view.state == comm::ProcessState::kRuns && !view.ledger.ended;
    if (!able || (!of_processes && !view.ledger.waiting)) continue;
    if (speaker < 0 || view.ledger.rank < speaker) speaker = view.ledger.rank;
  }
  return speaker;
}

}  // namespace hadal::train
