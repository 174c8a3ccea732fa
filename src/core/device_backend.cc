#include "core/device_backend.h"

#include "core/error.h"

namespace hadal {
namespace {

constinit const DeviceBackend* g_cuda = nullptr;

}  // namespace

RegisterDeviceBackend::RegisterDeviceBackend(const DeviceBackend& backend) { g_cuda = &backend; }

const DeviceBackend& backend_of(Device device) {
  HADAL_CHECK(device.kind == DeviceKind::kCuda && g_cuda != nullptr, "device {}: this program was built without a backend for it",
              name_of(device));
  return *g_cuda;
}

void begin_profile_range(const char* name) noexcept {
  if (g_cuda != nullptr && g_cuda->begin_range != nullptr) g_cuda->begin_range(name);
}

void end_profile_range() noexcept {
  if (g_cuda != nullptr && g_cuda->end_range != nullptr) g_cuda->end_range();
}

int num_cuda_devices() noexcept { return g_cuda == nullptr ? 0 : g_cuda->num_devices(); }

}  // namespace hadal
