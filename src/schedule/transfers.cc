#include "schedule/transfers.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "schedule/dependency.h"

namespace hadal::schedule {
namespace {

/// A receive, and the number of the compute action in its list before which it is posted.
struct Posting {
  Action action;
  int before = 0;
};

/// By message: the number of the compute action that consumes it, -1 for none.
std::vector<int> consuming_actions(const Plan& plan) {
  std::vector<int> numbers(num_messages(plan.placement), -1);
  for (const ActionList& list : plan.ranks) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      for (const Edge& edge : inputs_of(plan.placement, list[i])) {
        numbers[message_index(plan.placement, edge.message)] = static_cast<int>(i);
      }
    }
  }
  return numbers;
}

}  // namespace

void add_transfers(Plan& plan) {
  const Placement& placement = plan.placement;
  const int num_ranks = placement.num_ranks();
  const std::vector<int> consumed_by = consuming_actions(plan);

  std::vector<ActionList> with_sends(plan.ranks.size());
  std::map<std::pair<int, int>, std::vector<Posting>> pairs;  // by (receiver, sender): the receives in the order of the sends
  for (int rank = 0; rank < num_ranks; ++rank) {
    ActionList& list = with_sends[static_cast<std::size_t>(rank)];
    for (const Action& action : plan.ranks[static_cast<std::size_t>(rank)]) {
      HADAL_CHECK(!is_transfer(action.op), "rank {} has transfers already", rank);
      list.push_back(action);
      for (const Edge& edge : outputs_of(placement, action)) {
        const Location to = consumer(placement, edge.message);
        const int number = consumed_by[message_index(placement, edge.message)];
        if (to.rank == rank || number < 0) continue;
        list.push_back({Op::kSend, edge.work, {}, edge.message.payload, to.rank});
        const Work user{to.slot, edge.message.stage, edge.message.micro_batch};
        pairs[{to.rank, rank}].push_back({{Op::kReceive, user, {}, edge.message.payload, rank}, std::max(number - 1, 0)});
      }
    }
  }

  std::vector<std::vector<Posting>> postings(plan.ranks.size());
  for (auto& entry : pairs) {
    std::vector<Posting>& ordered = entry.second;
    for (std::size_t k = ordered.size(); k-- > 1;) ordered[k - 1].before = std::min(ordered[k - 1].before, ordered[k].before);
    auto& all = postings[static_cast<std::size_t>(entry.first.first)];
    all.insert(all.end(), ordered.begin(), ordered.end());
  }

  for (std::size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    std::ranges::stable_sort(postings[rank], {}, &Posting::before);
    ActionList complete;
    auto next = postings[rank].begin();
    int number = 0;
    for (const Action& action : with_sends[rank]) {
      if (!is_transfer(action.op)) {
        for (; next != postings[rank].end() && next->before <= number; ++next) complete.push_back(next->action);
        ++number;
      }
      complete.push_back(action);
    }
    plan.ranks[rank] = std::move(complete);
  }
}

}  // namespace hadal::schedule
