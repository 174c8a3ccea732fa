// Moving tensors between devices, in the order of a stream. On the CPU everything is done before the call returns.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal {

/// The stream on which this process computes on a device.
Stream stream_of(Device device);

/// to = from: same dtype and number of elements, any two devices of which one may be the host; `stream` belongs to the device that
/// is not, or to both. Host memory may be changed as soon as the call returns; what was copied to the host is there then, so that
/// this is where the host waits for the device.
void copy(Stream& stream, ConstView from, View to);
/// All bytes zero.
void fill_zero(Stream& stream, View view);
/// Returns when the device has done what was enqueued.
void synchronize(Stream& stream);

/// A copy of `from` on a device.
Tensor to_device(Stream& stream, ConstView from, Device device);
/// The tensor itself where it lies on that device, else a copy there.
Tensor moved_to(Stream& stream, Tensor tensor, Device device);
/// A copy of `from` on the host; waits for it.
inline Tensor to_host(Stream& stream, ConstView from) { return to_device(stream, from, kCpu); }

}  // namespace hadal
