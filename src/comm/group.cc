#include "comm/group.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace hadal::comm {
namespace {

/// One step of an ordered hash: splitmix64 over the numbers that make a group what it is.
std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) {
  hash += value + 0x9e3779b97f4a7c15u;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  return hash ^ (hash >> 31);
}

}  // namespace

Group world_group(int size) {
  HADAL_CHECK(size >= 1, "a group of {} ranks", size);
  Group group{.name = "world", .world_ranks = std::vector<int>(static_cast<std::size_t>(size)), .id = 1};
  std::iota(group.world_ranks.begin(), group.world_ranks.end(), 0);
  return group;
}

Group group_of_members(const Group& parent, std::span<const int> members, std::string name, int occurrence) {
  HADAL_CHECK(!members.empty(), "a group \"{}\" without members", name);
  Group group{.name = std::move(name), .world_ranks = {}, .id = mixed(parent.id, static_cast<std::uint64_t>(occurrence))};
  for (const int member : members) {
    HADAL_CHECK(member >= 0 && member < static_cast<int>(parent.world_ranks.size()), "group \"{}\": rank {} of {}", group.name,
                member, parent.world_ranks.size());
    HADAL_CHECK(std::ranges::count(members, member) == 1, "group \"{}\": rank {} twice", group.name, member);
    group.world_ranks.push_back(parent.world_ranks[static_cast<std::size_t>(member)]);
    group.id = mixed(group.id, static_cast<std::uint64_t>(member));
  }
  return group;
}

}  // namespace hadal::comm
