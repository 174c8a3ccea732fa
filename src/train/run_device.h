// Where a rank computes.
#pragma once

#include "comm/communicator.h"
#include "config/config.h"
#include "core/device.h"

namespace hadal::train {

/// The device that run.device asks for: of several CUDA devices that this process sees, rank i of a host takes the i-th in turn.
/// UserError when there is none, with what to do. From here on the ranks of `world` reach each other's device memory as
/// parallel.device_transport says, and ops keep to run.deterministic. Collective over `world`.
Device run_device(const Config& config, comm::Communicator& world);

}  // namespace hadal::train
