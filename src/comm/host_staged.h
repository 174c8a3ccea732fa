// Device memory through host memory, over any Transport: several ranks may share one device, and nothing but the host's way between
// ranks is needed. Each call waits for the device, so this is for tests, for rare messages and for machines without NCCL. Sums are
// the host's: in rank order.
#pragma once

#include "comm/device_transport.h"

namespace hadal::comm {

class HostStaged final : public DeviceTransport {
 public:
  /// `host` is the transport of the same group and outlives this.
  explicit HostStaged(Transport& host) : host_(host) {}

  std::string description() const override { return "staged through the host"; }
  std::unique_ptr<DeviceTransport> subgroup(Transport& control, const Group&, int) override {
    return std::make_unique<HostStaged>(control);
  }
  void open_channels() override {}
  std::unique_ptr<Work> begin_all_gather(ConstView mine, View all) override;
  std::unique_ptr<Work> begin_reduce_scatter_sum(ConstView all, View mine) override;
  std::unique_ptr<Work> begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                         std::span<const std::size_t> recv_bytes) override;
  std::unique_ptr<Work> begin_send(ConstView values, int to, int tag) override;
  std::unique_ptr<Work> begin_receive(View values, int from, int tag) override;
  std::unique_ptr<Work> begin_all_reduce_sum(View values) override;
  void broadcast(View values, int root) override;

 private:
  Transport& host_;
};

}  // namespace hadal::comm
