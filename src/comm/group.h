// Who belongs to a communicator: names and members, the same on every member.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace hadal::comm {

struct Group {
  std::string name;              ///< "world", "tp", ...
  std::vector<int> world_ranks;  ///< world rank of each member
  std::uint64_t id = 0;          ///< equal on all members; differs between any two groups of a process
};

/// All ranks of a world.
Group world_group(int size);

/// The group of `members` (ranks of `parent`). `occurrence` counts the groups that were made of the same list before.
/// Ranks out of range and repeated ones are a broken contract.
Group group_of_members(const Group& parent, std::span<const int> members, std::string name, int occurrence);

}  // namespace hadal::comm
