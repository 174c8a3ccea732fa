#include "comm/local/local_transport.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "comm/ordered_sum.h"
#include "core/error.h"

namespace hadal::comm::local {
namespace {

std::vector<std::byte> copy_of(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

void copy_out(std::byte* to, std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
}

/// All ranks called the same, with the same dtype and numbers.
void check_agreement(const Exchange& exchange, int rank) {
  const Part& mine = exchange.parts[static_cast<std::size_t>(rank)];
  for (const Part& part : exchange.parts) {
    HADAL_CHECK(part.op == mine.op, "ranks disagree: {} here, {} elsewhere", name_of(mine.op), name_of(part.op));
    HADAL_CHECK(part.dtype == mine.dtype && part.numbers == mine.numbers, "ranks disagree on {}: {} x {} here, {} x {} elsewhere",
                name_of(mine.op), fmt::join(mine.numbers, ", "), name_of(mine.dtype), fmt::join(part.numbers, ", "),
                name_of(part.dtype));
  }
}

class LocalWork final : public Work {
 public:
  explicit LocalWork(std::function<void()> finish) : finish_(std::move(finish)) {}
  void wait() override { finish_(); }
  void abandon() override {}

 private:
  std::function<void()> finish_;
};

std::unique_ptr<Work> work(std::function<void()> finish) { return std::make_unique<LocalWork>(std::move(finish)); }

}  // namespace

std::string LocalTransport::description() const { return fmt::format("local, {} threads", group_.world_ranks.size()); }

std::unique_ptr<Transport> LocalTransport::subgroup(const Group& group, std::span<const int>, int rank) {
  return std::make_unique<LocalTransport>(hub_, group, rank);
}

std::shared_ptr<const Exchange> LocalTransport::meet(Part part) {
  const std::shared_ptr<const Exchange> exchange = bring(std::move(part));
  hub_.wait_for(world_rank(), *exchange);
  check_agreement(*exchange, rank_);
  return exchange;
}

std::unique_ptr<Work> LocalTransport::begin_all_gather(std::span<const std::byte> mine, std::byte* all) {
  const auto exchange = bring({Op::kAllGather, DType::kU8, {static_cast<std::int64_t>(mine.size())}, {}, copy_of(mine)});
  return work([this, exchange, all] {
    hub_.wait_for(world_rank(), *exchange);
    check_agreement(*exchange, rank_);
    std::byte* to = all;
    for (const Part& part : exchange->parts) {
      copy_out(to, part.bytes);
      to += part.bytes.size();
    }
  });
}

std::unique_ptr<Work> LocalTransport::begin_reduce_scatter_sum(const std::byte* all, std::byte* mine, DType dtype,
                                                               std::int64_t part_numel) {
  const std::size_t part_bytes = static_cast<std::size_t>(part_numel) * size_of(dtype);
  const auto exchange =
      bring({Op::kReduceScatter, dtype, {part_numel}, {}, copy_of({all, part_bytes * group_.world_ranks.size()})});
  return work([this, exchange, mine, dtype, part_numel, part_bytes] {
    hub_.wait_for(world_rank(), *exchange);
    check_agreement(*exchange, rank_);
    std::vector<const void*> parts;
    for (const Part& part : exchange->parts) parts.push_back(part.bytes.data() + static_cast<std::size_t>(rank_) * part_bytes);
    ordered_sum(dtype, mine, parts, part_numel);
  });
}

std::unique_ptr<Work> LocalTransport::begin_all_to_all(const std::byte* send, std::span<const std::size_t> send_bytes,
                                                       std::byte* recv, std::span<const std::size_t> recv_bytes) {
  Part part{Op::kAllToAll, DType::kU8, {}, {send_bytes.begin(), send_bytes.end()}, {}};
  std::size_t total = 0;
  for (const std::size_t bytes : send_bytes) total += bytes;
  part.bytes = copy_of({send, total});
  const auto exchange = bring(std::move(part));
  return work([this, exchange, recv, expected = std::vector(recv_bytes.begin(), recv_bytes.end())] {
    hub_.wait_for(world_rank(), *exchange);
    check_agreement(*exchange, rank_);
    std::byte* to = recv;
    for (std::size_t from = 0; from < expected.size(); ++from) {
      const Part& theirs = exchange->parts[from];
      std::size_t offset = 0;
      for (int rank = 0; rank < rank_; ++rank) offset += static_cast<std::size_t>(theirs.mine[static_cast<std::size_t>(rank)]);
      const auto bytes = static_cast<std::size_t>(theirs.mine[static_cast<std::size_t>(rank_)]);
      HADAL_CHECK(bytes == expected[from], "rank {} of {} expects {} bytes of rank {}, which sends {}", rank_, group_.name,
                  expected[from], from, bytes);
      copy_out(to, std::span(theirs.bytes).subspan(offset, bytes));
      to += bytes;
    }
  });
}

std::unique_ptr<Work> LocalTransport::begin_send(std::span<const std::byte> bytes, int to, int tag) {
  const std::uint64_t number = sent_[{to, tag}]++;
  hub_.post({group_.id, rank_, to, tag, number}, group_.world_ranks[static_cast<std::size_t>(to)], copy_of(bytes));
  return work([] {});
}

std::unique_ptr<Work> LocalTransport::begin_receive(std::span<std::byte> bytes, int from, int tag) {
  const MessageKey key{group_.id, from, rank_, tag, received_[{from, tag}]++};
  return work([this, bytes, key] {
    const std::vector<std::byte> message = hub_.wait_for(world_rank(), key);
    HADAL_CHECK(message.size() == bytes.size(), "rank {} of {} expects a message of {} bytes from rank {}, which sends {}", rank_,
                group_.name, bytes.size(), std::get<1>(key), message.size());
    copy_out(bytes.data(), message);
  });
}

std::unique_ptr<Work> LocalTransport::begin_all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) {
  const auto exchange =
      bring({Op::kAllReduce, dtype, {numel}, {}, copy_of({values, static_cast<std::size_t>(numel) * size_of(dtype)})});
  return work([this, exchange, values] {
    hub_.wait_for(world_rank(), *exchange);
    check_agreement(*exchange, rank_);
    copy_out(values, exchange->sum);
  });
}

std::int64_t LocalTransport::all_reduce_max(std::int64_t value) {
  for (const auto exchange = meet({Op::kAllReduceMax, DType::kI64, {}, {value}, {}}); const Part& part : exchange->parts) {
    value = std::max(value, part.mine.front());
  }
  return value;
}

void LocalTransport::broadcast(std::span<std::byte> bytes, int root) {
  const auto exchange = meet({Op::kBroadcast,
                              DType::kU8,
                              {static_cast<std::int64_t>(bytes.size()), root},
                              {},
                              rank_ == root ? copy_of(bytes) : std::vector<std::byte>()});
  if (rank_ != root) copy_out(bytes.data(), exchange->parts[static_cast<std::size_t>(root)].bytes);
}

void LocalTransport::barrier() { meet({Op::kBarrier, DType::kU8, {}, {}, {}}); }

std::vector<std::string> LocalTransport::all_gather(std::string_view bytes) {
  const auto exchange = meet({Op::kAllGatherBytes, DType::kU8, {}, {}, copy_of(std::as_bytes(std::span(bytes)))});
  std::vector<std::string> gathered;
  for (const Part& part : exchange->parts)
    gathered.emplace_back(reinterpret_cast<const char*>(part.bytes.data()), part.bytes.size());
  return gathered;
}

}  // namespace hadal::comm::local
