#include "parallel/selection_sum.h"

#include <numeric>
#include <vector>

namespace hadal::parallel {
namespace {

std::vector<int> ranks_of_own_group(const comm::Communicator& tp, std::int64_t ranks_per_group) {
  const auto count = static_cast<int>(ranks_per_group);
  HADAL_CHECK(count >= 1 && tp.size() % count == 0, "selection groups over {} of {} ranks", count, tp.size());
  std::vector<int> ranks(static_cast<std::size_t>(count));
  std::iota(ranks.begin(), ranks.end(), tp.rank() / count * count);
  return ranks;
}

}  // namespace

SelectionSum::SelectionSum(comm::Communicator& tp, std::int64_t ranks_per_group)
    : ranks_(tp.subgroup(ranks_of_own_group(tp, ranks_per_group), "selection")) {}

void SelectionSum::sum(Stream&, View importance) const { ranks_->all_reduce_sum(importance); }

std::shared_ptr<const nn::SelectionSum> make_selection_sum(comm::Communicator& tp, const nn::AttentionOptions& options) {
  if (options.ranks_per_select_group() == 1) return nullptr;
  return std::make_shared<SelectionSum>(tp, options.ranks_per_select_group());
}

}  // namespace hadal::parallel
