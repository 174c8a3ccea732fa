#include "schedule/validate.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "schedule/dependency.h"
#include "schedule/peaks.h"

namespace hadal::schedule {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

/// "" or why `work` has no business on this rank.
std::string misplaced(const Placement& placement, int rank, const Work& work) {
  if (work.slot < 0 || work.slot >= placement.num_slots()) return fmt::format("there is no slot {}", work.slot);
  if (work.stage != placement.stage_of(rank, work.slot)) {
    return fmt::format("slot {} holds stage {}", work.slot, placement.stage_of(rank, work.slot));
  }
  if (work.micro_batch < placement.first_micro_batch(work.slot) || work.micro_batch >= placement.end_micro_batch(work.slot)) {
    return fmt::format("micro-batch {} does not run through slot {}", work.micro_batch, work.slot);
  }
  return "";
}

/// Every action is one that the placement and the purpose of the plan know.
std::string check_fields(const Plan& plan) {
  const Placement& placement = plan.placement;
  if (static_cast<int>(plan.ranks.size()) != placement.num_ranks()) {
    return fmt::format("{} lists for {} ranks", plan.ranks.size(), placement.num_ranks());
  }
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    for (const Action& action : plan.ranks[at(rank)]) {
      std::string wrong = misplaced(placement, rank, action.work);
      if (wrong.empty() && action.op == Op::kForwardBackward) wrong = misplaced(placement, rank, action.backward);
      if (wrong.empty() && plan.forward_only && (runs_backward(action.op) || runs_weight(action.op))) {
        wrong = "the plan is forward only";
      }
      if (!wrong.empty()) return fmt::format("rank {}: {}: {}", rank, describe(action), wrong);
    }
  }
  return "";
}

/// Each F, I, W once and in the order of micro-batches, F before I before W, on one rank.
class OrderOnRank {
 public:
  OrderOnRank(const Plan& plan, int rank) : plan_(plan), rank_(rank) {
    for (int slot = 0; slot < plan.placement.num_slots(); ++slot) {
      forwards_.push_back(plan.placement.first_micro_batch(slot));
    }
    inputs_ = weights_ = forwards_;
  }

  std::string check() {
    for (const Action& action : plan_.ranks[at(rank_)]) {
      if (is_transfer(action.op)) continue;
      const Work& backward = backward_work(action);
      // The backward half of a pair starts with its forward half, so it needs an F that came before.
      if (runs_backward(action.op) && backward.micro_batch >= forwards_[at(backward.slot)])
        return too_early(action, "F", backward);
      if (runs_forward(action.op)) {
        if (std::string wrong = count(forwards_, action, action.work, "F"); !wrong.empty()) return wrong;
      }
      if (runs_backward(action.op)) {
        if (std::string wrong = count(inputs_, action, backward, "I"); !wrong.empty()) return wrong;
      }
      if (runs_weight(action.op)) {
        if (backward.micro_batch >= inputs_[at(backward.slot)]) return too_early(action, "I", backward);
        if (std::string wrong = count(weights_, action, backward, "W"); !wrong.empty()) return wrong;
      }
    }
    for (int slot = 0; slot < plan_.placement.num_slots(); ++slot) {
      if (std::string wrong = missing(forwards_, slot, "F"); !wrong.empty()) return wrong;
      if (plan_.forward_only) continue;
      if (std::string wrong = missing(inputs_, slot, "I"); !wrong.empty()) return wrong;
      if (std::string wrong = missing(weights_, slot, "W"); !wrong.empty()) return wrong;
    }
    return "";
  }

 private:
  std::string too_early(const Action& action, const char* needed, const Work& work) const {
    return fmt::format("rank {}: {} comes before {}{} on stage {}", rank_, describe(action), needed, work.micro_batch,
                       work.stage);
  }

  std::string count(std::vector<int>& counters, const Action& action, const Work& work, const char* letter) const {
    int& next = counters[at(work.slot)];
    if (work.micro_batch < next) {
      return fmt::format("rank {}: {} repeats {}{} on stage {}", rank_, describe(action), letter, work.micro_batch, work.stage);
    }
    if (work.micro_batch > next) return too_early(action, letter, {work.slot, work.stage, next});
    ++next;
    return "";
  }

  std::string missing(const std::vector<int>& counters, int slot, const char* letter) const {
    if (counters[at(slot)] == plan_.placement.end_micro_batch(slot)) return "";
    return fmt::format("rank {}: {}{} on stage {} is missing", rank_, letter, counters[at(slot)],
                       plan_.placement.stage_of(rank_, slot));
  }

  const Plan& plan_;
  int rank_;
  std::vector<int> forwards_, inputs_, weights_;  // next micro-batch, by slot
};

/// Inputs are there, or on their way, when they are consumed; every tensor that another rank needs is sent to it and released,
/// once each.
class TransfersOfRank {
 public:
  TransfersOfRank(const Plan& plan, int rank)
      : placement_(plan.placement),
        list_(plan.ranks[at(rank)]),
        rank_(rank),
        states_(num_messages(plan.placement), State::kNowhere) {}

  std::string check() {
    for (const Action& action : list_) {
      const std::string wrong = is_transfer(action.op) ? transfer(action) : computation(action);
      if (!wrong.empty()) return fmt::format("rank {}: {}: {}", rank_, describe(action), wrong);
    }
    for (const Action& action : list_) {
      for (const Edge& edge : outputs_of(placement_, action)) {
        const int to = consumer(placement_, edge.message).rank;
        if (to == rank_ || state(edge.message) == State::kReleased) continue;
        return fmt::format("rank {}: {} is never {} rank {}", rank_, describe(edge.message),
                           state(edge.message) == State::kSent ? "released after the send to" : "sent to", to);
      }
    }
    return "";
  }

 private:
  enum class State : std::uint8_t { kNowhere, kProduced, kSent, kReleased, kPosted };

  State& state(const Message& message) { return states_[message_index(placement_, message)]; }

  std::string transfer(const Action& action) {
    const Message message = message_of(action);
    const bool gradient = message.payload == Payload::kGradient;
    if (message.stage < (gradient ? 0 : 1) || message.stage >= placement_.num_stages() - (gradient ? 1 : 0)) {
      return "there is no such transfer";
    }
    const bool receives = action.op == Op::kReceive;
    const int other = receives ? producer(placement_, message).rank : consumer(placement_, message).rank;
    if (other == rank_) return "both stages are on this rank";
    if (other != action.peer) return fmt::format("the peer should be rank {}", other);
    if (receives && gradient && state({Payload::kActivation, message.stage + 1, message.micro_batch}) == State::kNowhere) {
      return "it comes before the F whose output it belongs to";
    }
    const State before = receives ? State::kNowhere : action.op == Op::kSend ? State::kProduced : State::kSent;
    const State after = receives ? State::kPosted : action.op == Op::kSend ? State::kSent : State::kReleased;
    if (state(message) != before) return state(message) < before ? "it comes too early" : "it comes twice";
    state(message) = after;
    return "";
  }

  std::string computation(const Action& action) {
    for (const Edge& edge : inputs_of(placement_, action)) {
      const bool local = producer(placement_, edge.message).rank == rank_;
      if (state(edge.message) == (local ? State::kProduced : State::kPosted)) continue;
      return fmt::format("{} is not {} yet", describe(edge.message), local ? "computed" : "being received");
    }
    for (const Edge& edge : outputs_of(placement_, action)) state(edge.message) = State::kProduced;
    return "";
  }

  const Placement& placement_;
  const ActionList& list_;
  int rank_;
  std::vector<State> states_;  // by message
};

/// Both ends of each pair of ranks list the same messages in the same order.
std::string check_pairs(const Plan& plan) {
  std::map<std::pair<int, int>, std::vector<Message>> sent, received;  // by (from, to)
  for (int rank = 0; rank < plan.placement.num_ranks(); ++rank) {
    for (const Action& action : plan.ranks[at(rank)]) {
      if (action.op == Op::kSend) sent[{rank, action.peer}].push_back(message_of(action));
      if (action.op == Op::kReceive) received[{action.peer, rank}].push_back(message_of(action));
    }
  }
  const auto name = [](const std::vector<Message>& list, std::size_t k) {
    return k < list.size() ? describe(list[k]) : "nothing";
  };
  for (int from = 0; from < plan.placement.num_ranks(); ++from) {
    for (int to = 0; to < plan.placement.num_ranks(); ++to) {
      const std::vector<Message>& there = sent[{from, to}];
      const std::vector<Message>& here = received[{from, to}];
      for (std::size_t k = 0; k < std::max(there.size(), here.size()); ++k) {
        if (k < there.size() && k < here.size() && there[k] == here[k]) continue;
        return fmt::format("transfer {} from rank {} to rank {}: {} is sent and {} is received", k, from, to, name(there, k),
                           name(here, k));
      }
    }
  }
  return "";
}

/// Runs the lists: a computation waits until its messages were sent, a release until the peer has posted its receive; nothing
/// else waits.
std::string check_progress(const Plan& plan) {
  const Placement& placement = plan.placement;
  std::vector<bool> sent(num_messages(placement), false);
  std::vector<bool> posted(num_messages(placement), false);
  std::vector<std::size_t> position(plan.ranks.size(), 0);
  const auto awaited = [&](int rank) -> std::optional<Message> {
    const Action& action = plan.ranks[at(rank)][position[at(rank)]];
    if (action.op == Op::kRelease && !posted[message_index(placement, message_of(action))]) return message_of(action);
    for (const Edge& edge : inputs_of(placement, action)) {
      const bool remote = producer(placement, edge.message).rank != rank;
      if (remote && !sent[message_index(placement, edge.message)]) return edge.message;
    }
    return std::nullopt;
  };
  bool moved = true;
  while (moved) {
    moved = false;
    for (int rank = 0; rank < placement.num_ranks(); ++rank) {
      const ActionList& list = plan.ranks[at(rank)];
      for (std::size_t& i = position[at(rank)]; i < list.size() && !awaited(rank); ++i) {
        if (list[i].op == Op::kSend) sent[message_index(placement, message_of(list[i]))] = true;
        if (list[i].op == Op::kReceive) posted[message_index(placement, message_of(list[i]))] = true;
        moved = true;
      }
    }
  }
  std::string waits;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    if (position[at(rank)] == plan.ranks[at(rank)].size()) continue;
    waits += fmt::format("{}rank {} at {} for {}", waits.empty() ? "" : ", ", rank,
                         describe(plan.ranks[at(rank)][position[at(rank)]]), describe(*awaited(rank)));
  }
  return waits.empty() ? "" : "the ranks wait for each other: " + waits;
}

}  // namespace

Verdict validate(const Plan& plan) {
  Verdict verdict;
  std::string& reason = verdict.reason;
  reason = check_fields(plan);
  for (int rank = 0; rank < plan.placement.num_ranks() && reason.empty(); ++rank) reason = OrderOnRank(plan, rank).check();
  for (int rank = 0; rank < plan.placement.num_ranks() && reason.empty(); ++rank) reason = TransfersOfRank(plan, rank).check();
  if (reason.empty()) reason = check_pairs(plan);
  if (reason.empty()) reason = check_progress(plan);
  if (reason.empty()) {
    verdict.peak_activations = peak_activations(plan);
    verdict.peak_messages = peak_messages(plan);
  }
  return verdict;
}

}  // namespace hadal::schedule
