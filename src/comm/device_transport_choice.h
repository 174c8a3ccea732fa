// Which way device memory travels between the ranks of a world (device_transport.h): `parallel.device_transport` of the config.
#pragma once

#include <memory>

#include "comm/device_transport.h"

namespace hadal::comm {

/// kAutomatic: NCCL where it is built in and every rank has a device of its own, else through the host.
enum class DeviceTransportKind { kAutomatic, kNccl, kHost };

/// Collective over the group of `control`, which outlives the result. UserError when `kind` is kNccl in a build without it.
std::unique_ptr<DeviceTransport> make_device_transport(Transport& control, const Group& group, int rank, Device device,
                                                       DeviceTransportKind kind);

}  // namespace hadal::comm
