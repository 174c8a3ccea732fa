// Where the threads of a local world meet: what each rank brings to a collective, and messages that nobody has taken yet.
//
// Everything is brought as a copy, so a rank waits only for what it needs from others, and a rank that fails can leave at once. A
// collective is an Exchange, found by (group, how many the group began before); the rank that brings the last part completes it.
// A waiting thread sleeps on the condition variable of its world rank.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "comm/group.h"
#include "core/dtype.h"

namespace hadal::comm::local {

enum class Op { kAllGather, kReduceScatter, kAllToAll, kAllReduce, kMax, kBroadcast, kBarrier, kGatherStrings };

/// What one rank brings. Ranks that disagree on (op, dtype, numbers) are refused; numbers of an all-to-all and of kMax may differ.
struct Part {
  Op op = Op::kBarrier;
  DType dtype = DType::kU8;
  std::vector<std::int64_t> numbers;
  std::vector<std::byte> bytes;
};

struct Exchange {
  std::vector<Part> parts;    ///< by rank of the group; complete and constant once `ready`
  std::vector<std::byte> sum; ///< kAllReduce
  int arrived = 0;
  bool ready = false;
};

/// One message: group, sender, receiver (ranks of the group), tag, how many were begun before with the same four.
using MessageKey = std::tuple<std::uint64_t, int, int, int, std::uint64_t>;

class Hub {
 public:
  explicit Hub(int num_ranks) : sleepers_(static_cast<std::size_t>(num_ranks)) {}

  /// Brings `part` as rank `rank` of `group`.
  std::shared_ptr<const Exchange> bring(const Group& group, std::uint64_t sequence, int rank, Part part);
  void post(const MessageKey& key, int to_world_rank, std::vector<std::byte> bytes);

  /// Sleeps until the exchange is ready. ContractError when another rank has failed.
  void wait_for(int world_rank, const Exchange& exchange);
  /// The same for a message, which is handed over.
  std::vector<std::byte> wait_for(int world_rank, const MessageKey& key);

  /// A rank left by an exception: the others end at their next wait.
  void fail();

 private:
  void sleep(std::unique_lock<std::mutex>& lock, int world_rank, const std::function<bool()>& ready);

  std::mutex mutex_;
  std::vector<std::condition_variable> sleepers_;  ///< by world rank
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::shared_ptr<Exchange>> incomplete_;
  std::map<MessageKey, std::vector<std::byte>> messages_;
  bool failed_ = false;
};

}  // namespace hadal::comm::local
