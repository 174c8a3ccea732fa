// Device memory staged through the host, between ranks that are threads, on a device that is host memory under another name.
#include <gtest/gtest.h>

#include "comm/local/local_group.h"
#include "comm/single.h"
#include "core/copy.h"
#include "tests/support/device_exchange_checks.h"
#include "tests/support/fake_cuda.h"

namespace hadal::test {
namespace {

TEST(DeviceMemory, StagedCallsEqualThoseOnHostMemory) {
  use_fake_cuda();
  for (const int ranks : {2, 3, 4}) {
    comm::run_local_group(ranks, [](comm::Communicator& world) { EXPECT_EQ(check_device_exchanges(world, kFakeCuda, true), ""); });
  }
}

TEST(DeviceMemory, ARankAloneMovesItsOwn) {
  use_fake_cuda();
  comm::SingleCommunicator alone;
  EXPECT_EQ(check_device_exchanges(alone, kFakeCuda, true), "");
}

TEST(DeviceMemory, AskedForThroughTheHost) {
  use_fake_cuda();
  comm::run_local_group(2, [](comm::Communicator& world) {
    world.use_device(kFakeCuda, comm::DeviceTransportKind::kHost);
    EXPECT_NE(world.description().find("staged through the host"), std::string::npos);
    EXPECT_EQ(check_device_exchanges(world, kFakeCuda, true), "");
  });
}

TEST(DeviceMemory, OneCallHasOneDevice) {
  use_fake_cuda();
  comm::run_local_group(2, [](comm::Communicator& world) {
    Tensor host = Tensor::zeros({2}, DType::kF32), there = Tensor::zeros({4}, DType::kF32, kFakeCuda);
    EXPECT_THROW(world.all_gather(std::as_const(host).view(), there), ContractError);
  });
}

}  // namespace
}  // namespace hadal::test
