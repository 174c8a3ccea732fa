#include "core/tensor.h"

#include "core/device_backend.h"

namespace hadal {
namespace {

template <class V>
V reshaped(const V& view, Shape to) {
  HADAL_CHECK(to.numel() == view.shape.numel(), "reshape of {} to {}", view.shape.str(), to.str());
  V result = view;
  result.shape = to;
  return result;
}

template <class V, class Byte>
V sliced(const V& view, std::int64_t begin, std::int64_t end) {
  HADAL_CHECK(0 <= begin && begin <= end && end <= view.shape[0], "rows [{}, {}) of {}", begin, end, view.shape.str());
  std::array<std::int64_t, Shape::kMaxRank> extents{};
  std::int64_t row = 1;
  for (int dim = 0; dim < view.shape.rank(); ++dim) {
    extents[static_cast<std::size_t>(dim)] = dim == 0 ? end - begin : view.shape[dim];
    if (dim > 0) row *= view.shape[dim];
  }
  V result = view;
  result.data = static_cast<Byte*>(view.data) + static_cast<std::size_t>(begin * row) * size_of(view.dtype);
  result.shape = Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(view.shape.rank())));
  return result;
}

}  // namespace

ConstView ConstView::reshape(Shape to) const { return reshaped(*this, to); }
View View::reshape(Shape to) const { return reshaped(*this, to); }
ConstView ConstView::rows(std::int64_t begin, std::int64_t end) const { return sliced<ConstView, const char>(*this, begin, end); }
View View::rows(std::int64_t begin, std::int64_t end) const { return sliced<View, char>(*this, begin, end); }

Tensor Tensor::empty(Shape shape, DType dtype, Device device) {
  Tensor tensor;
  tensor.view_.dtype = dtype;
  tensor.view_.shape = shape;
  tensor.view_.device = device;
  tensor.view_.data = allocate(device, tensor.view_.bytes());
  return tensor;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device) {
  Tensor tensor = empty(shape, dtype, device);
  tensor.fill_zero();
  return tensor;
}

void Tensor::fill_zero() {
  if (view_.bytes() == 0) return;
  if (view_.device.is_cpu()) {
    std::memset(view_.data, 0, view_.bytes());
    return;
  }
  const DeviceBackend& backend = backend_of(view_.device);
  backend.zero(view_.device.index, backend.compute_stream(view_.device.index), view_.data, view_.bytes());
}

Tensor Tensor::clone() const {
  Tensor copy = empty(view_.shape, view_.dtype, view_.device);
  if (view_.bytes() == 0) return copy;
  if (view_.device.is_cpu()) {
    std::memcpy(copy.view_.data, view_.data, view_.bytes());
    return copy;
  }
  const DeviceBackend& backend = backend_of(view_.device);
  backend.copy(view_.device.index, backend.compute_stream(view_.device.index), copy.view_.data, view_.data, view_.bytes());
  return copy;
}

void Tensor::release() noexcept {
  if (view_.data != nullptr) deallocate(view_.device, view_.data, view_.bytes());
  view_ = View{};
}

}  // namespace hadal
