#include "schedule/transfers.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "schedule/dependency.h"
#include "schedule/releases.h"

namespace hadal::schedule {
namespace {

/// A receive, and the number of the compute action in its list before which it is posted.
struct Posting {
  Action action;
  int before = 0;
  int not_before = 0;
};

/// By message: the numbers, in their ranks' lists, of the compute actions that produce and consume it; -1 for none.
struct Ends {
  int produced_by = -1;
  int consumed_by = -1;
};

std::vector<Ends> ends_of_messages(const Plan& plan) {
  std::vector<Ends> ends(num_messages(plan.placement));
  for (const ActionList& list : plan.ranks) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const int number = static_cast<int>(i);
      for (const Edge& edge : inputs_of(plan.placement, list[i]))
        ends[message_index(plan.placement, edge.message)].consumed_by = number;
      for (const Edge& edge : outputs_of(plan.placement, list[i]))
        ends[message_index(plan.placement, edge.message)].produced_by = number;
    }
  }
  return ends;
}

/// Of one pair of ranks, in the order of the sends: brings the postings into that order. It exists, since a computation comes
/// after everything that its own input, or an earlier message from there, depends on.
void order_postings(std::vector<Posting>& postings) {
  for (std::size_t k = postings.size(); k-- > 1;) postings[k - 1].before = std::min(postings[k - 1].before, postings[k].before);
  int earliest = 0;
  for (Posting& posting : postings) {
    earliest = std::max(earliest, posting.not_before);
    posting.before = std::max(posting.before, earliest);
  }
}

}  // namespace

void add_transfers(Plan& plan) {
  const Placement& placement = plan.placement;
  const int num_ranks = placement.num_ranks();
  const std::vector<Ends> ends = ends_of_messages(plan);

  std::vector<ActionList> with_sends(plan.ranks.size());
  std::map<std::pair<int, int>, std::vector<Posting>> pairs;  // by (receiver, sender): the receives in the order of the sends
  for (int rank = 0; rank < num_ranks; ++rank) {
    ActionList& list = with_sends[static_cast<std::size_t>(rank)];
    for (const Action& action : plan.ranks[static_cast<std::size_t>(rank)]) {
      HADAL_CHECK(!is_transfer(action.op), "rank {} has transfers already", rank);
      list.push_back(action);
      for (const Edge& edge : outputs_of(placement, action)) {
        const Location to = consumer(placement, edge.message);
        const int used = ends[message_index(placement, edge.message)].consumed_by;
        if (to.rank == rank || used < 0) continue;
        list.push_back({Op::kSend, edge.work, {}, edge.message.payload, to.rank});
        Posting posting;
        posting.action = {Op::kReceive, {to.slot, edge.message.stage, edge.message.micro_batch}, {}, edge.message.payload, rank};
        posting.before = std::max(used - 1, 0);
        if (edge.message.payload == Payload::kGradient) {
          const Message output{Payload::kActivation, edge.message.stage + 1, edge.message.micro_batch};
          posting.not_before = ends[message_index(placement, output)].produced_by + 1;
        }
        pairs[{to.rank, rank}].push_back(posting);
      }
    }
  }

  std::vector<std::vector<Posting>> postings(plan.ranks.size());
  for (auto& entry : pairs) {
    order_postings(entry.second);
    auto& all = postings[static_cast<std::size_t>(entry.first.first)];
    all.insert(all.end(), entry.second.begin(), entry.second.end());
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
  add_releases(plan);
}

}  // namespace hadal::schedule
