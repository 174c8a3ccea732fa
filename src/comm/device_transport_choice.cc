#include "comm/device_transport_choice.h"

#include <algorithm>

#include "comm/host_staged.h"
#include "core/error.h"

namespace hadal::comm {
namespace {

/// NCCL refuses two ranks on one device.
bool devices_differ(Transport& control, const std::string& place) {
  std::vector<std::string> places = control.all_gather(place);
  std::ranges::sort(places);
  return std::ranges::adjacent_find(places) == places.end();
}

}  // namespace

std::unique_ptr<DeviceTransport> make_device_transport(Transport& control, const Group& group, int rank, Device device,
                                                       DeviceTransportKind kind) {
  const DeviceTransportBackend* const backend = device_transport_backend();
  if (kind == DeviceTransportKind::kNccl && backend == nullptr) {
    throw UserError("parallel.device_transport: nccl, but this program was built without NCCL: configure with HADAL_CUDA=ON, or set it to host");
  }
  const bool nccl = backend != nullptr && (kind == DeviceTransportKind::kNccl ||
                                           (kind == DeviceTransportKind::kAutomatic && devices_differ(control, backend->place(device))));
  if (nccl) return backend->make(control, group, rank, device);
  return std::make_unique<HostStaged>(control);
}

}  // namespace hadal::comm
