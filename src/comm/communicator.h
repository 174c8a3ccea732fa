// The group of ranks that train together, or a part of it, behind one interface: `single` (one rank), `local` (threads of one
// process, for sanitizers and fault injection), `mpi` (ranks under mpirun or srun).
//
// Collectives: all ranks of the group make the same calls in the same order with the same dtype and numel; several started ones
// may be under way. Point to point: messages match in order per (pair, tag). Determinism: a sum is ((x_0 + x_1) + x_2) + ... in
// rank order for each element, so every rank gets the same bits in every run, whatever the arrival of messages and the number of
// threads (design.md 3). Waiting ranks yield their core; a group may have more ranks than the machine has cores. One thread per
// rank: all groups of a rank are used by the thread that has its world.
//
// Views may lie on a device, all of a call on the same one. Such a call is in the order of the device's compute stream and does not
// wait for the device: wait() of its handle makes later work of that stream come after it (device_transport.h). How the bytes travel
// is use_device()'s choice; without it, through the host. NCCL adds in an order of its own, which depends on the number of ranks and
// their places alone: the same bits in every run, though not those of the host. Its messages match in order per pair and direction,
// whatever their tags.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "comm/device_transport.h"
#include "comm/device_transport_choice.h"
#include "comm/group.h"
#include "comm/handle.h"
#include "comm/ledger.h"
#include "comm/transport.h"
#include "core/tensor.h"

namespace hadal::comm {

class Communicator {
 public:
  /// A world. `transport` joins the ranks of `group`; none is needed where there is one rank.
  Communicator(int rank, const Group& group, std::unique_ptr<Transport> transport);
  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(group_.world_ranks.size()); }
  bool is_root() const { return rank_ == 0; }
  /// "world", or the name given to subgroup().
  const std::string& name() const { return group_.name; }
  /// World rank of each member.
  std::span<const int> world_ranks() const { return group_.world_ranks; }
  /// "single", "local, 4 threads", "mpi, one host, shared memory; device memory by nccl 2.28.9": for doctor and the start-up line.
  std::string description() const;

  /// A group of `members` (distinct ranks of this group, this rank among them), whose ranks follow the list's order. Collective
  /// over the members alone. The same list may be asked for several times: each time another group. This
  /// communicator outlives it.
  std::unique_ptr<Communicator> subgroup(std::span<const int> members, std::string name);

  /// How device memory travels between the ranks of this group, and of the groups that are made from it afterwards; `device` is this
  /// rank's. Collective; saying the same again does nothing.
  void use_device(Device device, DeviceTransportKind kind);
  /// Collective: messages on device memory between neighbouring ranks (in a ring) need not go through the host from here on. Once is
  /// enough.
  void open_channels();

  /// What this rank does with others, in all its groups; nullptr in a world of one rank.
  Ledger* ledger() const { return ledger_.get(); }

  /// values = sum over ranks, in place; f64, f32 or i64.
  void all_reduce_sum(View values);
  /// The same for many tensors of any of these dtypes, packed into few messages: the gradients of a step.
  void all_reduce_sum(std::span<const View> values);
  /// Sum of one number per rank, in rank order.
  double all_reduce_sum(double value);
  std::int64_t all_reduce_sum(std::int64_t value);
  std::int64_t all_reduce_max(std::int64_t value);

  /// The bytes of rank `root` on every rank; all pass the same number of bytes.
  void broadcast(View values, int root);
  void broadcast(std::span<std::byte> bytes, int root);
  /// The string of rank `root` on every rank, of any length.
  void broadcast(std::string& text, int root);

  void barrier();
  /// The bytes of all ranks, by rank; lengths may differ.
  std::vector<std::string> all_gather(std::string_view bytes);

  /// all = [mine of rank 0, mine of rank 1, ...]: size() * mine.numel() elements of any dtype. `mine` may be its own part of
  /// `all`.
  void all_gather(ConstView mine, View all) { start_all_gather(mine, all).wait(); }
  /// all = size() equal parts; mine = sum over ranks of part rank(); f64, f32 or i64. `mine` may be that part of `all`.
  void reduce_scatter_sum(ConstView all, View mine) { start_reduce_scatter_sum(all, mine).wait(); }
  /// Rows (dim 0) of any dtype, packed by rank from row 0: send_rows[r] go to rank r, recv_rows[r] come from rank r. Counts may
  /// be 0 and must fit on both ends; the views may hold more rows than are used.
  void all_to_all(ConstView send, std::span<const std::int64_t> send_rows, View recv, std::span<const std::int64_t> recv_rows) {
    start_all_to_all(send, send_rows, recv, recv_rows).wait();
  }
  /// To another rank of the group. May wait until the receiver has posted its receive; of equal numel and dtype.
  void send(ConstView values, int to, int tag) { start_send(values, to, tag).wait(); }
  void receive(View values, int from, int tag) { start_receive(values, from, tag).wait(); }

  /// The same, started (handle.h): buffers belong to the call until wait() has returned.
  Handle start_all_gather(ConstView mine, View all);
  Handle start_reduce_scatter_sum(ConstView all, View mine);
  Handle start_all_to_all(ConstView send, std::span<const std::int64_t> send_rows, View recv,
                          std::span<const std::int64_t> recv_rows);
  Handle start_send(ConstView values, int to, int tag);
  Handle start_receive(View values, int from, int tag);
  Handle start_all_reduce_sum(View values);

 private:
  Communicator(std::shared_ptr<Ledger> ledger, int rank, Group group);
  bool alone() const { return size() == 1; }
  void check_root(int root) const;
  void check_message(int peer, int tag) const;
  LedgerCall record(Op op, std::size_t bytes) const;
  LedgerCall record_message(Op op, std::size_t bytes, int peer, int tag);
  /// The same for a call that is waited for at once.
  LedgerCall record_wait(Op op, std::size_t bytes) const;
  void sum_in_place(View values);
  void sum_packed(std::span<const View> values, std::size_t bytes);
  DeviceTransport& device_transport();

  int rank_ = 0;
  Group group_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<DeviceTransport> device_transport_;  ///< made when it is asked for
  std::optional<std::pair<Device, DeviceTransportKind>> used_device_;
  bool channels_open_ = false;
  std::shared_ptr<Ledger> ledger_;
  int ledger_slot_ = -1;
  std::map<std::vector<int>, int> occurrences_;                 ///< subgroups made of each list
  std::map<std::tuple<Op, int, int>, std::uint64_t> messages_;  ///< begun, by direction, peer and tag
  Tensor packed_;  ///< of the last packed sum
};

}  // namespace hadal::comm
