// What core asks of a device runtime that it does not link. kernels/cuda/runtime.cu fills this in at start-up; a build without the
// CUDA backend, and a machine without a device, have none.
#pragma once

#include <cstddef>

#include "core/device.h"

namespace hadal {

/// Streams are the backend's own handles; `index` is a device of this process. Everything throws Error that names the call, unless
/// it says otherwise.
struct DeviceBackend {
  /// Devices that can be used; 0 where the driver is missing. Never throws.
  int (*num_devices)() noexcept;
  /// Aligned to 256 bytes; null when the device has no memory left.
  void* (*allocate)(int index, std::size_t bytes);
  void (*release)(int index, void* block) noexcept;
  /// The one stream of a device on which this process computes. Memory that is freed may be handed out again at once, since
  /// whoever uses it next comes later in this stream; work on other streams waits for it, and it for them, by events.
  void* (*compute_stream)(int index);
  /// Enqueued; which side is the host's is read off the addresses. Host memory may be changed or freed as soon as the call returns;
  /// what comes back to the host is there when the call returns.
  void (*copy)(int index, void* stream, void* to, const void* from, std::size_t bytes);
  void (*zero)(int index, void* stream, void* at, std::size_t bytes);
  /// Returns when everything enqueued on the stream is done.
  void (*synchronize)(int index, void* stream);
  /// From the first call on, work enqueued on the stream is recorded, not done; the second ends it and gives what was recorded, or
  /// null where that is not possible (after a failure in between). Meanwhile copies from and to the host, and waits, are errors.
  void (*begin_graph)(int index, void* stream);
  void* (*end_graph)(int index, void* stream);
  void (*launch_graph)(int index, void* stream, void* graph);
  void (*destroy_graph)(void* graph) noexcept;
  /// Marks of a profiler's timeline, which nest; null: none.
  void (*begin_range)(const char* name) noexcept = nullptr;
  void (*end_range)() noexcept = nullptr;
};

/// `backend` stays alive for the whole program.
struct RegisterDeviceBackend {
  explicit RegisterDeviceBackend(const DeviceBackend& backend);
};

/// That of a device other than the CPU; ContractError when this program has none.
const DeviceBackend& backend_of(Device device);
/// CUDA devices that this process can use: 0 in a build without the backend, and where no driver answers.
int num_cuda_devices() noexcept;
/// Of ProfileRange (core/profile_range.h); nothing in a build without the backend.
void begin_profile_range(const char* name) noexcept;
void end_profile_range() noexcept;

}  // namespace hadal
