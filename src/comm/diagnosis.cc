#include "comm/diagnosis.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

namespace hadal::comm {
namespace {

using Cause = Diagnosis::Cause;

const RankView* find(std::span<const RankView> ranks, int world_rank) {
  const auto found = std::ranges::find_if(ranks, [&](const RankView& view) { return view.ledger.rank == world_rank; });
  return found == ranks.end() ? nullptr : &*found;
}

std::string name_of_ranks(const std::vector<int>& ranks) {
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, " "));
}

/// "in backward of micro-batch 2, layer 5 (step 7)".
std::string place_of(const RankSnapshot& rank) {
  const std::string position = rank.position.str();
  return fmt::format(" in {}{}", position.empty() ? "no named phase" : position,
                     rank.step > 0 ? fmt::format(" (step {})", rank.step) : "");
}

bool running_and_waiting(const RankView& view) {
  return view.state == ProcessState::kRuns && !view.ledger.ended && view.ledger.waiting;
}

/// The other end of `mine` has been begun. It would be among the peer's last calls: a message that was begun long ago has
/// arrived.
bool is_met(const RankSnapshot& rank, const CallSnapshot& mine, const GroupSnapshot& group, const RankSnapshot& peer) {
  const auto place = std::ranges::find(group.members, rank.rank);
  const Op other_end = mine.op == Op::kSend ? Op::kReceive : Op::kSend;
  return std::ranges::any_of(peer.calls, [&](const CallSnapshot& call) {
    return call.op == other_end && call.group == mine.group && call.tag == mine.tag && call.sequence >= mine.sequence &&
           call.peer == static_cast<int>(place - group.members.begin());
  });
}

/// World ranks that `view` waits for: those that have not begun the call, or, when all have, those that do not wait in it and so
/// may not have seen to their part of it.
std::vector<int> blockers(std::span<const RankView> ranks, const RankView& view) {
  const CallSnapshot& call = *view.ledger.waiting;
  const GroupSnapshot* group = view.ledger.group(call.group);
  if (group == nullptr) return {};
  if (is_message(call.op)) {
    if (call.peer < 0 || call.peer >= static_cast<int>(group->members.size())) return {};
    const int peer = group->members[static_cast<std::size_t>(call.peer)];
    const RankView* other = find(ranks, peer);
    const bool under_way = other != nullptr && other->ledger.waiting && is_met(view.ledger, call, *group, other->ledger);
    return under_way ? std::vector<int>{} : std::vector<int>{peer};
  }
  std::vector<int> absent;
  std::vector<int> elsewhere;
  for (const int member : group->members) {
    const RankView* other = find(ranks, member);
    if (other == nullptr || member == view.ledger.rank) continue;
    const GroupSnapshot* theirs = other->ledger.group(call.group);
    if (theirs == nullptr || theirs->entered < call.sequence) absent.push_back(member);
    if (!other->ledger.waiting) elsewhere.push_back(member);
  }
  return absent.empty() ? elsewhere : absent;
}

/// "; ranks 0 1 2 wait for it in reduce_scatter #118 of dp {0 1 2 3}", and the same for the next call that is waited in.
std::string waiters_of(std::span<const RankView> ranks, const std::vector<int>& culprits) {
  std::map<std::string, std::vector<int>> by_call;
  std::vector<int> behind;
  for (const RankView& view : ranks) {
    if (!running_and_waiting(view) || std::ranges::count(culprits, view.ledger.rank) > 0) continue;
    const std::vector<int> missing = blockers(ranks, view);
    const bool direct = std::ranges::any_of(missing, [&](int rank) { return std::ranges::count(culprits, rank) > 0; });
    std::string call = view.ledger.name_of(*view.ledger.waiting);
    // A sender and its receiver are told apart, the members of a collective are not.
    if (direct) by_call[std::move(call)].push_back(view.ledger.rank);
    if (!direct) behind.push_back(view.ledger.rank);
  }
  std::string text;
  for (const auto& [call, waiting] : by_call) {
    text += fmt::format("; {} {} for {} in {}", name_of_ranks(waiting), waiting.size() == 1 ? "waits" : "wait",
                        culprits.size() == 1 ? "it" : "them", call);
  }
  if (!behind.empty()) text += fmt::format("; {} {} behind them", name_of_ranks(behind), behind.size() == 1 ? "waits" : "wait");
  return by_call.empty() ? "; no rank waits for it in a call yet" : text;
}

/// The ranks in `state`, each with its place.
std::optional<Diagnosis> of_processes(std::span<const RankView> ranks, ProcessState state, Cause cause, const char* what) {
  Diagnosis diagnosis{.cause = cause, .culprits = {}, .sentence = ""};
  for (const RankView& view : ranks) {
    if (view.ledger.ended || view.state != state) continue;
    diagnosis.culprits.push_back(view.ledger.rank);
    const CallSnapshot* call = view.ledger.waiting ? &*view.ledger.waiting : nullptr;
    diagnosis.sentence += fmt::format("{}rank {} {}{}{}", diagnosis.sentence.empty() ? "" : "; ", view.ledger.rank, what,
                                      place_of(view.ledger), call != nullptr ? ", inside " + view.ledger.name_of(*call) : "");
  }
  if (diagnosis.culprits.empty()) return std::nullopt;
  diagnosis.sentence += waiters_of(ranks, diagnosis.culprits);
  return diagnosis;
}

/// Ranks that made different calls as the same one of their group.
std::optional<Diagnosis> of_disagreement(std::span<const RankView> ranks, const RankView& view) {
  const CallSnapshot& mine = *view.ledger.waiting;
  const GroupSnapshot* group = view.ledger.group(mine.group);
  if (group == nullptr || is_message(mine.op)) return std::nullopt;
  for (const int member : group->members) {
    const RankView* other = find(ranks, member);
    if (other == nullptr) continue;
    for (const CallSnapshot& theirs : other->ledger.calls) {
      if (theirs.group != mine.group || theirs.sequence != mine.sequence || theirs.op == mine.op || is_message(theirs.op))
        continue;
      return Diagnosis{.cause = Cause::kDeadlock,
                       .culprits = {std::min(member, view.ledger.rank), std::max(member, view.ledger.rank)},
                       .sentence = fmt::format("ranks disagree: rank {} is in {}{}, rank {} made it {}{}", view.ledger.rank,
                                               view.ledger.name_of(mine), place_of(view.ledger), member, comm::name_of(theirs.op),
                                               theirs.position.str().empty() ? "" : " in " + theirs.position.str())};
    }
  }
  return std::nullopt;
}

Diagnosis of_cycle(std::span<const RankView> ranks, std::vector<int> cycle) {
  std::ranges::sort(cycle);
  std::string text = fmt::format("{} wait for each other", name_of_ranks(cycle));
  for (const int rank : cycle) {
    const RankSnapshot& ledger = find(ranks, rank)->ledger;
    text += fmt::format("{} rank {} in {}{}", rank == cycle.front() ? ":" : ",", rank, ledger.name_of(*ledger.waiting),
                        place_of(ledger));
  }
  return {.cause = Cause::kDeadlock, .culprits = std::move(cycle), .sentence = std::move(text)};
}

}  // namespace

std::optional<Diagnosis> diagnose(std::span<const RankView> ranks) {
  if (auto gone = of_processes(ranks, ProcessState::kGone, Cause::kGone, "is gone (killed or crashed)")) return gone;
  if (auto stopped = of_processes(ranks, ProcessState::kStopped, Cause::kStopped, "is stopped")) return stopped;

  // From the rank that has waited longest to the one that it waits for, until somebody does not wait, or is met again.
  const RankView* first = nullptr;
  for (const RankView& view : ranks) {
    if (running_and_waiting(view) && (first == nullptr || view.ledger.waiting->started_ns < first->ledger.waiting->started_ns))
      first = &view;
  }
  if (first == nullptr) return std::nullopt;
  std::vector<int> path;
  for (const RankView* at = first;;) {
    path.push_back(at->ledger.rank);
    if (auto disagreement = of_disagreement(ranks, *at)) return disagreement;
    const std::vector<int> missing = blockers(ranks, *at);
    const RankView* next = nullptr;
    for (const int rank : missing) {
      const RankView* other = find(ranks, rank);
      if (other != nullptr && (next == nullptr || (running_and_waiting(*next) && !running_and_waiting(*other)))) next = other;
    }
    if (next == nullptr) {
      return Diagnosis{.cause = Cause::kUnseen,
                       .culprits = {},
                       .sentence = fmt::format("rank {} waits in {}{}; every other rank that this host sees has begun it",
                                               at->ledger.rank, at->ledger.name_of(*at->ledger.waiting), place_of(at->ledger))};
    }
    if (!running_and_waiting(*next)) {
      const std::vector<int> culprit{next->ledger.rank};
      const char* what = next->state == ProcessState::kHeld ? "is held by a debugger" : "is busy outside any call";
      return Diagnosis{.cause = Cause::kAbsent,
                       .culprits = culprit,
                       .sentence = fmt::format("rank {} {}{}", culprit[0],
                                               next->ledger.ended ? "has ended its work" : what + place_of(next->ledger),
                                               waiters_of(ranks, culprit))};
    }
    if (const auto met = std::ranges::find(path, next->ledger.rank); met != path.end()) return of_cycle(ranks, {met, path.end()});
    at = next;
  }
}

}  // namespace hadal::comm
