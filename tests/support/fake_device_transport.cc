#include "tests/support/fake_device_transport.h"

#include "comm/host_staged.h"
#include "tests/support/fake_cuda.h"

namespace hadal::test {
namespace {

class FakeTransport final : public comm::DeviceTransport {
 public:
  explicit FakeTransport(comm::Transport& control) : staged_(control) {}

  std::string description() const override { return "fake"; }
  std::unique_ptr<DeviceTransport> subgroup(comm::Transport& control, const comm::Group&, int) override {
    return std::make_unique<FakeTransport>(control);
  }
  void open_channels() override {}
  std::unique_ptr<comm::Work> begin_all_gather(ConstView mine, View all) override {
    const HostWaitsUncounted here;
    return staged_.begin_all_gather(mine, all);
  }
  std::unique_ptr<comm::Work> begin_reduce_scatter_sum(ConstView all, View mine) override {
    const HostWaitsUncounted here;
    return staged_.begin_reduce_scatter_sum(all, mine);
  }
  std::unique_ptr<comm::Work> begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                               std::span<const std::size_t> recv_bytes) override {
    const HostWaitsUncounted here;
    return staged_.begin_all_to_all(send, send_bytes, recv, recv_bytes);
  }
  std::unique_ptr<comm::Work> begin_send(ConstView values, int to, int tag) override {
    const HostWaitsUncounted here;
    return staged_.begin_send(values, to, tag);
  }
  std::unique_ptr<comm::Work> begin_receive(View values, int from, int tag) override { return staged_.begin_receive(values, from, tag); }
  std::unique_ptr<comm::Work> begin_all_reduce_sum(View values) override {
    const HostWaitsUncounted here;
    return staged_.begin_all_reduce_sum(values);
  }
  void broadcast(View values, int root) override {
    const HostWaitsUncounted here;
    staged_.broadcast(values, root);
  }

 private:
  comm::HostStaged staged_;
};

const comm::DeviceTransportBackend backend{
    .name = [] { return std::string("fake"); },
    .place = [](Device) { return std::string("the one device"); },
    .make = [](comm::Transport& control, const comm::Group&, int, Device) -> std::unique_ptr<comm::DeviceTransport> {
      return std::make_unique<FakeTransport>(control);
    },
    .failure = [] { return std::string(); },
};

}  // namespace

void use_fake_device_transport() { static const comm::RegisterDeviceTransport registered(backend); }

}  // namespace hadal::test
