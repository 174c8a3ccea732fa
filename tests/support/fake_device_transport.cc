#include "tests/support/fake_device_transport.h"

#include <memory>
#include <span>
#include <string>

#include "comm/device_transport.h"
#include "tests/support/fake_cuda.h"

namespace hadal::test {
namespace {

/// The host's transport, on the same bytes: what the fake device was told to do is done already.
class FakeDeviceTransport final : public comm::DeviceTransport {
 public:
  explicit FakeDeviceTransport(comm::Transport& host) : host_(host) {}

  std::string description() const override { return "fake device to fake device"; }
  std::unique_ptr<DeviceTransport> subgroup(comm::Transport& control, const comm::Group&, int) override {
    return std::make_unique<FakeDeviceTransport>(control);
  }
  void open_channels() override {}

  std::unique_ptr<comm::Work> begin_all_gather(ConstView mine, View all) override {
    return host_.begin_all_gather({reach_fake(mine.data), mine.bytes()}, reach_fake(all.data));
  }
  std::unique_ptr<comm::Work> begin_reduce_scatter_sum(ConstView all, View mine) override {
    return host_.begin_reduce_scatter_sum(reach_fake(all.data), reach_fake(mine.data), mine.dtype, mine.numel());
  }
  std::unique_ptr<comm::Work> begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                               std::span<const std::size_t> recv_bytes) override {
    return host_.begin_all_to_all(reach_fake(send.data), send_bytes, reach_fake(recv.data), recv_bytes);
  }
  std::unique_ptr<comm::Work> begin_send(ConstView values, int to, int tag) override {
    return host_.begin_send({reach_fake(values.data), values.bytes()}, to, tag);
  }
  std::unique_ptr<comm::Work> begin_receive(View values, int from, int tag) override {
    return host_.begin_receive({reach_fake(values.data), values.bytes()}, from, tag);
  }
  std::unique_ptr<comm::Work> begin_all_reduce_sum(View values) override {
    return host_.begin_all_reduce_sum(reach_fake(values.data), values.dtype, values.numel());
  }
  void broadcast(View values, int root) override { host_.broadcast({reach_fake(values.data), values.bytes()}, root); }

 private:
  comm::Transport& host_;
};

const comm::DeviceTransportBackend backend{
    .name = [] { return std::string("fake"); },
    .place = [](Device) { return std::string("the fake device"); },
    .make = [](comm::Transport& control, const comm::Group&, int, Device) -> std::unique_ptr<comm::DeviceTransport> {
      return std::make_unique<FakeDeviceTransport>(control);
    },
    .failure = [] { return std::string(); },
};

}  // namespace

void use_fake_device_transport() { static const comm::RegisterDeviceTransport registered(backend); }

}  // namespace hadal::test
