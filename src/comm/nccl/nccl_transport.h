// Device memory between ranks that have a device each, by NCCL. Collectives of a group share one communicator (ring.h). Messages need
// one for each direction of a pair: NCCL works off the operations of a communicator one after the other, and a receive that was posted
// early would hold up the sends behind it. open_channels() makes those of neighbours in the ring; other messages go through the host.
//
// The host waits for no rank, except when a group is made, and the first time that NCCL uses an algorithm (it then connects).
#pragma once

#include <map>
#include <utility>

#include "comm/host_staged.h"
#include "comm/nccl/ring.h"

namespace hadal::comm::nccl {

class NcclTransport final : public DeviceTransport {
 public:
  /// Collective over the group of `control`, which outlives this.
  NcclTransport(Transport& control, const Group& group, int rank, Device device);

  std::string description() const override;
  std::unique_ptr<DeviceTransport> subgroup(Transport& control, const Group& group, int rank) override;
  void open_channels() override;
  std::unique_ptr<Work> begin_all_gather(ConstView mine, View all) override;
  std::unique_ptr<Work> begin_reduce_scatter_sum(ConstView all, View mine) override;
  std::unique_ptr<Work> begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                         std::span<const std::size_t> recv_bytes) override;
  std::unique_ptr<Work> begin_send(ConstView values, int to, int tag) override;
  std::unique_ptr<Work> begin_receive(View values, int from, int tag) override;
  std::unique_ptr<Work> begin_all_reduce_sum(View values) override;
  void broadcast(View values, int root) override;

 private:
  Ring* channel(int from, int to);

  Transport& control_;
  HostStaged staged_;
  Group group_;
  int rank_;
  Device device_;
  std::shared_ptr<Ring> all_;
  std::map<std::pair<int, int>, std::shared_ptr<Ring>> channels_;  ///< by (from, to); one of them is this rank
};

}  // namespace hadal::comm::nccl
