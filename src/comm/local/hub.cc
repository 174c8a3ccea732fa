#include "comm/local/hub.h"

#include <algorithm>

#include "comm/diagnosis.h"
#include "comm/ordered_sum.h"
#include "core/error.h"

namespace hadal::comm::local {
namespace {

void add_up(Exchange& exchange) {
  const Part& first = exchange.parts.front();
  std::vector<const void*> parts;
  for (const Part& part : exchange.parts) {
    // Unequal lengths are refused by every rank at its wait; here they must only not be read.
    if (part.op != first.op || part.bytes.size() != first.bytes.size() || part.dtype != first.dtype) return;
    parts.push_back(part.bytes.data());
  }
  exchange.sum.resize(first.bytes.size());
  ordered_sum(first.dtype, exchange.sum.data(), parts, static_cast<std::int64_t>(first.bytes.size() / size_of(first.dtype)));
}

}  // namespace

Hub::Hub(int num_ranks) : ranks_(static_cast<std::size_t>(num_ranks)) {}

void Hub::join(int world_rank, const Ledger& ledger) {
  const std::scoped_lock lock(mutex_);
  of(world_rank).ledger = &ledger;
}

void Hub::leave(int world_rank) {
  const std::scoped_lock lock(mutex_);
  of(world_rank).left = true;
  of(world_rank).ledger = nullptr;
  end_deadlock();
}

std::shared_ptr<const Exchange> Hub::bring(const Group& group, std::uint64_t sequence, int rank, Part part) {
  const bool is_sum = part.op == Op::kAllReduce;
  std::unique_lock lock(mutex_);
  const auto key = std::pair(group.id, sequence);
  std::shared_ptr<Exchange>& entry = incomplete_[key];
  if (!entry) {
    entry = std::make_shared<Exchange>();
    entry->parts.resize(group.world_ranks.size());
  }
  const std::shared_ptr<Exchange> exchange = entry;
  exchange->parts[static_cast<std::size_t>(rank)] = std::move(part);
  if (++exchange->arrived < static_cast<int>(group.world_ranks.size())) return exchange;
  incomplete_.erase(key);
  if (is_sum) {
    // Once for all ranks; they have nothing to read before it is ready.
    lock.unlock();
    add_up(*exchange);
    lock.lock();
  }
  exchange->ready = true;
  for (const int member : group.world_ranks) of(member).sleeper.notify_one();
  return exchange;
}

void Hub::post(const MessageKey& key, int to_world_rank, std::vector<std::byte> bytes) {
  const std::scoped_lock lock(mutex_);
  messages_[key] = std::move(bytes);
  of(to_world_rank).sleeper.notify_one();
}

void Hub::sleep(std::unique_lock<std::mutex>& lock, int world_rank, const Ready& ready) {
  Rank& me = of(world_rank);
  if (failure_.empty() && !ready()) {
    me.waits_for = &ready;
    end_deadlock();
    me.sleeper.wait(lock, [&] { return !failure_.empty() || ready(); });
    me.waits_for = nullptr;
  }
  if (!failure_.empty()) throw ContractError(failure_);
}

void Hub::end_deadlock() {
  const auto stuck = [](const Rank& rank) { return rank.left || (rank.waits_for != nullptr && !(*rank.waits_for)()); };
  if (!failure_.empty() || !std::ranges::all_of(ranks_, stuck)) return;
  std::vector<RankView> views;
  for (std::size_t at = 0; at < ranks_.size(); ++at) {
    RankView& view = views.emplace_back();
    if (ranks_[at].ledger != nullptr) view.ledger = snapshot_of(ranks_[at].ledger->memory());
    view.ledger.rank = static_cast<int>(at);
    view.ledger.ended = ranks_[at].left;
  }
  // Nobody waits: the last one has left.
  if (const std::optional<Diagnosis> diagnosis = diagnose(views)) end_all("deadlock: " + diagnosis->sentence);
}

void Hub::end_all(std::string reason) {
  failure_ = std::move(reason);
  for (Rank& rank : ranks_) rank.sleeper.notify_all();
}

void Hub::wait_for(int world_rank, const Exchange& exchange) {
  std::unique_lock lock(mutex_);
  sleep(lock, world_rank, [&] { return exchange.ready; });
}

std::vector<std::byte> Hub::wait_for(int world_rank, const MessageKey& key) {
  std::unique_lock lock(mutex_);
  auto found = messages_.end();
  sleep(lock, world_rank, [&] { return (found = messages_.find(key)) != messages_.end(); });
  std::vector<std::byte> bytes = std::move(found->second);
  messages_.erase(found);
  return bytes;
}

void Hub::fail() {
  const std::scoped_lock lock(mutex_);
  if (failure_.empty()) end_all("another rank of this group failed");
}

}  // namespace hadal::comm::local
