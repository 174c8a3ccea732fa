// The transport between threads of one process (hub.h): parts are copied in, results are copied or summed out.
#pragma once

#include <functional>
#include <map>

#include "comm/local/hub.h"
#include "comm/transport.h"

namespace hadal::comm::local {

class LocalTransport final : public Transport {
 public:
  /// The hub is shared by the threads of the world and outlives them.
  LocalTransport(Hub& hub, Group group, int rank) : hub_(hub), group_(std::move(group)), rank_(rank) {}

  std::string description() const override;
  std::unique_ptr<Transport> subgroup(const Group& group, std::span<const int> members, int rank) override;
  std::unique_ptr<Work> begin_all_gather(std::span<const std::byte> mine, std::byte* all) override;
  std::unique_ptr<Work> begin_reduce_scatter_sum(const std::byte* all, std::byte* mine, DType dtype,
                                                 std::int64_t part_numel) override;
  std::unique_ptr<Work> begin_all_to_all(const std::byte* send, std::span<const std::size_t> send_bytes, std::byte* recv,
                                         std::span<const std::size_t> recv_bytes) override;
  std::unique_ptr<Work> begin_send(std::span<const std::byte> bytes, int to, int tag) override;
  std::unique_ptr<Work> begin_receive(std::span<std::byte> bytes, int from, int tag) override;
  std::unique_ptr<Work> begin_all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) override;
  std::int64_t all_reduce_max(std::int64_t value) override;
  void broadcast(std::span<std::byte> bytes, int root) override;
  void barrier() override;
  std::vector<std::string> all_gather(std::string_view bytes) override;

 private:
  std::shared_ptr<const Exchange> bring(Part part) { return hub_.bring(group_, sequence_++, rank_, std::move(part)); }
  /// bring() and wait.
  std::shared_ptr<const Exchange> meet(Part part);
  int world_rank() const { return group_.world_ranks[static_cast<std::size_t>(rank_)]; }

  Hub& hub_;
  Group group_;
  int rank_;
  std::uint64_t sequence_ = 0;
  std::map<std::pair<int, int>, std::uint64_t> sent_;      ///< messages begun by (to, tag)
  std::map<std::pair<int, int>, std::uint64_t> received_;  ///< by (from, tag)
};

}  // namespace hadal::comm::local
