#include "schedule/releases.h"

#include <algorithm>

#include "core/error.h"
#include "schedule/dependency.h"

namespace hadal::schedule {
namespace {

/// By rank: position in its list of the last computation that is known to have ended.
using Knowledge = std::vector<int>;

struct Pending {
  Action send;
  std::size_t receiver = 0;
  int consumed_at = 0;  ///< position in the receiver's list
};

class ReleasePass {
 public:
  explicit ReleasePass(const Plan& plan)
      : plan_(plan),
        consumed_at_(num_messages(plan.placement), -1),
        known_when_sent_(num_messages(plan.placement)),
        known_(plan.ranks.size(), Knowledge(plan.ranks.size(), -1)),
        pending_(plan.ranks.size()),
        position_(plan.ranks.size(), 0),
        lists_(plan.ranks.size()) {
    for (const ActionList& list : plan.ranks) {
      for (std::size_t i = 0; i < list.size(); ++i) {
        for (const Edge& edge : inputs_of(plan.placement, list[i])) consumed_at_[index(edge.message)] = static_cast<int>(i);
      }
    }
  }

  /// Walks the lists in an order in which they could be run.
  std::vector<ActionList> run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (std::size_t rank = 0; rank < plan_.ranks.size(); ++rank) {
        while (position_[rank] < plan_.ranks[rank].size() && step(rank)) moved = true;
      }
    }
    for (std::size_t rank = 0; rank < plan_.ranks.size(); ++rank) {
      const ActionList& list = plan_.ranks[rank];
      // A plan that stops here is the validator's to refuse, with everything in it.
      lists_[rank].insert(lists_[rank].end(), list.begin() + static_cast<std::ptrdiff_t>(position_[rank]), list.end());
      for (const Pending& pending : pending_[rank]) lists_[rank].push_back(release(pending));
    }
    return std::move(lists_);
  }

 private:
  std::size_t index(const Message& message) const { return message_index(plan_.placement, message); }

  static Action release(const Pending& pending) {
    Action action = pending.send;
    action.op = Op::kRelease;
    return action;
  }

  /// False when the next action of `rank` waits for a message that is not sent yet.
  bool step(std::size_t rank) {
    const Action& action = plan_.ranks[rank][position_[rank]];
    if (action.op == Op::kSend) {
      const Message message = message_of(action);
      known_when_sent_[index(message)] = known_[rank];
      pending_[rank].push_back({action, static_cast<std::size_t>(action.peer), consumed_at_[index(message)]});
    } else if (!is_transfer(action.op)) {
      const Edges inputs = inputs_of(plan_.placement, action);
      const auto remote = [&](const Edge& edge) {
        return static_cast<std::size_t>(producer(plan_.placement, edge.message).rank) != rank;
      };
      for (const Edge& edge : inputs) {
        if (remote(edge) && known_when_sent_[index(edge.message)].empty()) return false;
      }
      for (const Edge& edge : inputs) {
        if (remote(edge)) learn(known_[rank], known_when_sent_[index(edge.message)]);
      }
      std::erase_if(pending_[rank], [&](const Pending& pending) {
        if (known_[rank][pending.receiver] < pending.consumed_at) return false;
        lists_[rank].push_back(release(pending));
        return true;
      });
      known_[rank][rank] = static_cast<int>(position_[rank]);
    }
    lists_[rank].push_back(action);
    ++position_[rank];
    return true;
  }

  static void learn(Knowledge& mine, const Knowledge& other) {
    for (std::size_t rank = 0; rank < mine.size(); ++rank) mine[rank] = std::max(mine[rank], other[rank]);
  }

  const Plan& plan_;
  std::vector<int> consumed_at_;            // by message: position of its consumer
  std::vector<Knowledge> known_when_sent_;  // by message: what its sender knew
  std::vector<Knowledge> known_;            // by rank
  std::vector<std::vector<Pending>> pending_;
  std::vector<std::size_t> position_;
  std::vector<ActionList> lists_;
};

}  // namespace

void add_releases(Plan& plan) { plan.ranks = ReleasePass(plan).run(); }

}  // namespace hadal::schedule
