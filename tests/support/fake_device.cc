#include "tests/support/fake_device.h"

#include <cstdlib>
#include <cstring>

#include "core/allocator.h"
#include "core/device_backend.h"
#include "core/error.h"

namespace hadal::test {
namespace {

const DeviceBackend kFake{
    .num_devices = []() noexcept { return 1; },
    .allocate = [](int, std::size_t bytes) { return std::aligned_alloc(256, (bytes + 255) / 256 * 256); },
    .release = [](int, void* block) noexcept { std::free(block); },
    .compute_stream = [](int) { return static_cast<void*>(nullptr); },
    .copy = [](int, void*, void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); },
    .zero = [](int, void*, void* at, std::size_t bytes) { std::memset(at, 0, bytes); },
    .synchronize = [](int, void*) {},
};

const DeviceBackend* backend_before() {
  try {
    return &backend_of(FakeDevice::device);
  } catch (const ContractError&) {
    return nullptr;
  }
}

const DeviceBackend* g_before = nullptr;

}  // namespace

FakeDevice::FakeDevice() {
  g_before = backend_before();
  const RegisterDeviceBackend registered(kFake);
}

FakeDevice::~FakeDevice() {
  trim(device);
  if (g_before != nullptr) const RegisterDeviceBackend registered(*g_before);
}

}  // namespace hadal::test
