// The calls between ranks, by name: for the ledger, for messages about ranks that disagree or hang.
#pragma once

#include <cstdint>
#include <string_view>

namespace hadal::comm {

enum class Op : std::uint8_t {
  kSubgroup,
  kAllReduce,
  kAllReduceMax,
  kBroadcast,
  kBarrier,
  kAllGather,
  kAllGatherBytes,
  kReduceScatter,
  kAllToAll,
  kSend,
  kReceive,
};

constexpr std::string_view name_of(Op op) {
  constexpr std::string_view kNames[] = {"subgroup",   "all_reduce",          "all_reduce_max", "broadcast",  "barrier",
                                         "all_gather", "all_gather of bytes", "reduce_scatter", "all_to_all", "send",
                                         "receive"};
  return kNames[static_cast<std::size_t>(op)];
}

/// Between two ranks; the others are calls of the whole group.
constexpr bool is_message(Op op) { return op == Op::kSend || op == Op::kReceive; }

}  // namespace hadal::comm
