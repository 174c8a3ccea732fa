// What a kind of communicator (threads, MPI) provides: bytes moved and sums made between the ranks of one group. Communicator
// checks arguments, leaves out what needs no other rank (groups of one, nothing to move) and keeps the ledger.
//
// All ranks of a group make the same collective calls in the same order. begin_* never waits for another rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/group.h"
#include "comm/handle.h"
#include "core/dtype.h"

namespace hadal::comm {

class Transport {
 public:
  virtual ~Transport() = default;
  virtual std::string description() const = 0;
  /// Collective over `members` (ranks of this group); `rank` is this rank's place in the list, of at least two.
  virtual std::unique_ptr<Transport> subgroup(const Group& group, std::span<const int> members, int rank) = 0;

  /// all = the bytes of every rank; equal counts. `mine` may be its own part of `all`.
  virtual std::unique_ptr<Work> begin_all_gather(std::span<const std::byte> mine, std::byte* all) = 0;
  /// mine = sum over ranks, in rank order, of part `rank` of their `all`; f64, f32, i64. `mine` may be that part.
  virtual std::unique_ptr<Work> begin_reduce_scatter_sum(const std::byte* all, std::byte* mine, DType dtype,
                                                         std::int64_t part_numel) = 0;
  /// Bytes for each rank and of each rank, packed by rank.
  virtual std::unique_ptr<Work> begin_all_to_all(const std::byte* send, std::span<const std::size_t> send_bytes, std::byte* recv,
                                                 std::span<const std::size_t> recv_bytes) = 0;
  /// Messages of one pair and tag arrive in the order in which they were begun, on both sides.
  virtual std::unique_ptr<Work> begin_send(std::span<const std::byte> bytes, int to, int tag) = 0;
  virtual std::unique_ptr<Work> begin_receive(std::span<std::byte> bytes, int from, int tag) = 0;
  virtual std::unique_ptr<Work> begin_all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) = 0;

  /// The blocking form, where it may be faster.
  virtual void all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) {
    begin_all_reduce_sum(values, dtype, numel)->wait();
  }
  virtual std::int64_t all_reduce_max(std::int64_t value) = 0;
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  virtual void barrier() = 0;
  virtual std::vector<std::string> all_gather(std::string_view bytes) = 0;
};

}  // namespace hadal::comm
