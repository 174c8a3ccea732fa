#include "comm/local/hub.h"

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
  for (const int member : group.world_ranks) sleepers_[static_cast<std::size_t>(member)].notify_one();
  return exchange;
}

void Hub::post(const MessageKey& key, int to_world_rank, std::vector<std::byte> bytes) {
  const std::scoped_lock lock(mutex_);
  messages_[key] = std::move(bytes);
  sleepers_[static_cast<std::size_t>(to_world_rank)].notify_one();
}

void Hub::sleep(std::unique_lock<std::mutex>& lock, int world_rank, const std::function<bool()>& ready) {
  sleepers_[static_cast<std::size_t>(world_rank)].wait(lock, [&] { return failed_ || ready(); });
  if (failed_) throw ContractError("another rank of this group failed");
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
  failed_ = true;
  for (std::condition_variable& sleeper : sleepers_) sleeper.notify_all();
}

}  // namespace hadal::comm::local
