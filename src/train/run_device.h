// Where a rank computes.
#pragma once

#include "comm/communicator.h"
#include "config/config.h"
#include "core/device.h"

namespace hadal::train {

/// The device that run.device asks for: of several CUDA devices that this process sees, rank i of a host takes the i-th in turn.
/// UserError when there is none, with what to do. Collective over `world`.
Device run_device(DeviceChoice choice, comm::Communicator& world);
/// The same of a config; `world`, and groups made from it afterwards, send the memory of this device as parallel.device_transport says.
Device join_devices(const Config& config, comm::Communicator& world);

}  // namespace hadal::train
