#include "core/copy.h"

#include <cstring>
#include <utility>

#include "core/device_backend.h"

namespace hadal {

Stream stream_of(Device device) {
  return device.is_cpu() ? Stream(device) : Stream(device, backend_of(device).compute_stream(device.index));
}

void copy(Stream& stream, ConstView from, View to) {
  HADAL_CHECK(from.dtype == to.dtype && from.numel() == to.numel(), "copy of {} {} to {} {}", name_of(from.dtype), from.shape.str(),
              name_of(to.dtype), to.shape.str());
  if (from.bytes() == 0) return;
  if (from.device.is_cpu() && to.device.is_cpu()) {
    std::memcpy(to.data, from.data, from.bytes());
    return;
  }
  const Device device = stream.device();
  HADAL_CHECK((from.device.is_cpu() || from.device == device) && (to.device.is_cpu() || to.device == device),
              "copy from {} to {} on a stream of {}", name_of(from.device), name_of(to.device), name_of(device));
  backend_of(device).copy(device.index, stream.native(), to.data, from.data, from.bytes());
}

void fill_zero(Stream& stream, View view) {
  if (view.bytes() == 0) return;
  if (view.device.is_cpu()) {
    std::memset(view.data, 0, view.bytes());
    return;
  }
  HADAL_CHECK(view.device == stream.device(), "{} zeroed on a stream of {}", name_of(view.device), name_of(stream.device()));
  backend_of(view.device).zero(view.device.index, stream.native(), view.data, view.bytes());
}

void synchronize(Stream& stream) {
  if (!stream.device().is_cpu()) backend_of(stream.device()).synchronize(stream.device().index, stream.native());
}

Tensor to_device(Stream& stream, ConstView from, Device device) {
  Tensor to = Tensor::empty(from.shape, from.dtype, device);
  copy(stream, from, to);
  return to;
}

Tensor moved_to(Stream& stream, Tensor tensor, Device device) {
  return tensor.device() == device ? std::move(tensor) : to_device(stream, tensor, device);
}

}  // namespace hadal
