#include "checkpoint/assignment.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "core/error.h"

namespace hadal::checkpoint {

std::vector<int> assign_evenly(std::span<const std::int64_t> bytes, int group_size) {
  HADAL_CHECK(group_size >= 1, "a group of {}", group_size);
  std::vector<std::size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t task) { return bytes[task]; });
  using Load = std::pair<std::int64_t, int>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int member = 0; member < group_size; ++member) loads.emplace(0, member);
  std::vector<int> members(bytes.size());
  for (const std::size_t task : order) {
    const auto [load, member] = loads.top();
    loads.pop();
    members[task] = member;
    loads.emplace(load + bytes[task], member);
  }
  return members;
}

}  // namespace hadal::checkpoint
