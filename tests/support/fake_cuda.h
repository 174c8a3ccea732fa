// A CUDA device without a GPU: its memory is host memory that host code cannot touch (a read or a write of a device address ends the
// test with a segmentation fault), its ops are the CPU's. With it the whole model and trainer run "on cuda" on any machine, and what
// mixes up the two sides is found:
//   - an op that is given host memory throws;
//   - work may be recorded as a graph: it is kept as calls, with the arguments that they had, and a copy from or to the host is refused;
//   - bf16 operands are widened to f32 around the CPU's op and what it wrote is rounded back, as a device would.
//
// Results in f32 are those of the CPU bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.h"

namespace hadal::test {

inline constexpr Device kFakeCuda{DeviceKind::kCuda, 0};

/// From here on, in this process, CUDA is this device (and no other).
void use_fake_cuda();
/// Where the device itself reaches an address of its memory.
std::byte* reach_fake(const void* address);
/// How often the host would have waited for the device so far: copies to the host, and synchronize().
std::int64_t num_host_waits();
/// Launches of recorded graphs so far.
std::int64_t num_graph_launches();

}  // namespace hadal::test
