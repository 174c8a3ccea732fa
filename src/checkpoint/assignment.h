// Who of several ranks takes which of several tasks, so that each has about the same number of bytes: which replica writes a
// slice that all of them hold, which rank hashes which tensor. A pure function of its arguments: every rank finds the same answer
// alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hadal::checkpoint {

/// For each task (of so many bytes) its member of `group_size`: largest first, each to the member with the least so far, ties to
/// the earlier task and the lower member.
std::vector<int> assign_evenly(std::span<const std::int64_t> bytes, int group_size);

}  // namespace hadal::checkpoint
