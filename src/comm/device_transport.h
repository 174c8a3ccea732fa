// How device memory travels between the ranks of a group, beside the Transport that carries host memory. Two kinds: staged through
// host memory over any Transport (host_staged.h), and NCCL (comm/nccl, in builds with the CUDA backend), which registers itself here.
//
// Everything is in the order of the device's compute stream (core/copy.h): an operation begins after what was enqueued there before,
// and Work::wait() makes what is enqueued there afterwards come after it. A caller that never waits and frees its buffers breaks that
// order; between begin_* and wait() they belong to the operation.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "comm/transport.h"
#include "core/tensor.h"

namespace hadal::comm {

class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;
  /// "nccl 2.28.9", "staged through the host".
  virtual std::string description() const = 0;
  /// For a group made from this one. Collective over its members; `control` is the host transport of that group and outlives it.
  virtual std::unique_ptr<DeviceTransport> subgroup(Transport& control, const Group& group, int rank) = 0;
  /// Collective: makes ready what messages between neighbouring ranks (in a ring) need to travel from device to device.
  virtual void open_channels() = 0;

  // The calls of Transport, on views of one device.
  virtual std::unique_ptr<Work> begin_all_gather(ConstView mine, View all) = 0;
  virtual std::unique_ptr<Work> begin_reduce_scatter_sum(ConstView all, View mine) = 0;
  virtual std::unique_ptr<Work> begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                                 std::span<const std::size_t> recv_bytes) = 0;
  virtual std::unique_ptr<Work> begin_send(ConstView values, int to, int tag) = 0;
  virtual std::unique_ptr<Work> begin_receive(View values, int from, int tag) = 0;
  virtual std::unique_ptr<Work> begin_all_reduce_sum(View values) = 0;
  virtual void broadcast(View values, int root) = 0;
};

/// What a library for device memory registers (one: NCCL). `backend` stays alive for the whole program.
struct DeviceTransportBackend {
  /// "nccl 2.28.9".
  std::string (*name)();
  /// Where a device is, equal for two ranks that share one.
  std::string (*place)(Device device);
  /// For the group of `control`; collective.
  std::unique_ptr<DeviceTransport> (*make)(Transport& control, const Group& group, int rank, Device device);
  /// What went wrong on the device or the way to it, after it was enqueued; "" when nothing did. From any thread.
  std::string (*failure)();
};

struct RegisterDeviceTransport {
  explicit RegisterDeviceTransport(const DeviceTransportBackend& backend);
};

/// nullptr in a build without one.
const DeviceTransportBackend* device_transport_backend();
/// DeviceTransportBackend::failure of this program; asked by the watchdog, since an error on the device has no call that returns it.
std::string device_transport_failure();

}  // namespace hadal::comm
