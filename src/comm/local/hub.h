// Where the threads of a local world meet: what each rank brings to a collective, and messages that nobody has taken yet.
//
// Everything is brought as a copy, so a rank waits only for what it needs from others, and a rank that fails can leave at once. A
// collective is an Exchange, found by (group, how many the group began before); the rank that brings the last part completes it.
// A waiting thread sleeps on the condition variable of its world rank. When all that are left sleep and nothing that they sleep
// for can come any more, they are told so: a deadlock ends in a sentence at once.
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
#include "comm/ledger.h"
#include "comm/operation.h"
#include "core/dtype.h"

namespace hadal::comm::local {

/// What one rank brings. Ranks that disagree on (op, dtype, numbers) are refused; what may differ goes into `mine`.
struct Part {
  Op op = Op::kBarrier;
  DType dtype = DType::kU8;
  std::vector<std::int64_t> numbers;
  std::vector<std::int64_t> mine;
  std::vector<std::byte> bytes;
};

struct Exchange {
  std::vector<Part> parts;     ///< by rank of the group; complete and constant once `ready`
  std::vector<std::byte> sum;  ///< kAllReduce
  int arrived = 0;
  bool ready = false;
};

/// One message: group, sender, receiver (ranks of the group), tag, how many were begun before with the same four.
using MessageKey = std::tuple<std::uint64_t, int, int, int, std::uint64_t>;

class Hub {
 public:
  explicit Hub(int num_ranks);

  /// A rank begins, with its ledger; it leaves before the ledger goes away.
  void join(int world_rank, const Ledger& ledger);
  void leave(int world_rank);

  /// Brings `part` as rank `rank` of `group`.
  std::shared_ptr<const Exchange> bring(const Group& group, std::uint64_t sequence, int rank, Part part);
  void post(const MessageKey& key, int to_world_rank, std::vector<std::byte> bytes);

  /// Sleeps until the exchange is ready. ContractError when another rank has failed, or nobody can make it ready any more.
  void wait_for(int world_rank, const Exchange& exchange);
  /// The same for a message, which is handed over.
  std::vector<std::byte> wait_for(int world_rank, const MessageKey& key);

  /// A rank left by an exception: the others end at their next wait.
  void fail();

 private:
  using Ready = std::function<bool()>;
  struct Rank {
    std::condition_variable sleeper;
    const Ready* waits_for = nullptr;  ///< while it sleeps
    const Ledger* ledger = nullptr;    ///< from join to leave
    bool left = false;
  };

  void sleep(std::unique_lock<std::mutex>& lock, int world_rank, const Ready& ready);
  /// Ends everybody when nobody can move any more.
  void end_deadlock();
  void end_all(std::string reason);
  Rank& of(int world_rank) { return ranks_[static_cast<std::size_t>(world_rank)]; }

  std::mutex mutex_;
  std::vector<Rank> ranks_;  ///< by world rank
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::shared_ptr<Exchange>> incomplete_;
  std::map<MessageKey, std::vector<std::byte>> messages_;
  std::string failure_;  ///< why everybody ends
};

}  // namespace hadal::comm::local
