// Device memory staged through the host, between ranks that are threads, on a device that is host memory under another name.
#include <gtest/gtest.h>

#include "comm/local/local_group.h"
#include "comm/single.h"
#include "core/copy.h"
#include "tests/support/device_exchange_checks.h"
#include "tests/support/fake_device.h"

namespace hadal::test {
namespace {

TEST(DeviceMemory, StagedCallsEqualThoseOnHostMemory) {
  const FakeDevice fake;
  for (const int ranks : {2, 3, 4}) {
    comm::run_local_group(ranks, [](comm::Communicator& world) { EXPECT_EQ(check_device_exchanges(world, FakeDevice::device, true), ""); });
  }
}

TEST(DeviceMemory, ARankAloneMovesItsOwn) {
  const FakeDevice fake;
  comm::SingleCommunicator alone;
  EXPECT_EQ(check_device_exchanges(alone, FakeDevice::device, true), "");
}

TEST(DeviceMemory, AskedForThroughTheHost) {
  const FakeDevice fake;
  comm::run_local_group(2, [](comm::Communicator& world) {
    world.use_device(FakeDevice::device, comm::DeviceTransportKind::kHost);
    EXPECT_NE(world.description().find("staged through the host"), std::string::npos);
    EXPECT_EQ(check_device_exchanges(world, FakeDevice::device, true), "");
  });
}

TEST(DeviceMemory, OneCallHasOneDevice) {
  const FakeDevice fake;
  comm::run_local_group(2, [](comm::Communicator& world) {
    Tensor host = Tensor::zeros({2}, DType::kF32), there = Tensor::zeros({4}, DType::kF32, FakeDevice::device);
    EXPECT_THROW(world.all_gather(std::as_const(host).view(), there), ContractError);
  });
}

}  // namespace
}  // namespace hadal::test
