// Tensors: an owning handle on device memory, and the plain views that kernels take.
// Contiguous, row-major; no lazy evaluation, no operators.
#pragma once

#include <cstring>
#include <span>

#include "core/allocator.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/shape.h"
#include "core/storage.h"

namespace hadal {

/// Read-only view: pointer, dtype, shape, device. The memory belongs to somebody else.
struct ConstView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape{0};
  Device device{};

  bool empty() const { return shape.numel() == 0; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(shape.numel()) * size_of(dtype); }

  /// Typed pointer; the dtype must match.
  template <class T>
  const T* as() const {
    HADAL_CHECK(dtype == kDTypeOf<T>, "view of {} read as {}", name_of(dtype), name_of(kDTypeOf<T>));
    return static_cast<const T*>(data);
  }
  /// The elements, for host code: ContractError where they lie on another device (copy them, core/copy.h).
  template <class T>
  std::span<const T> span() const {
    HADAL_CHECK(device.is_cpu(), "host code reads memory of {}", name_of(device));
    return {as<T>(), static_cast<std::size_t>(numel())};
  }
  /// Same elements, another shape of equal numel.
  ConstView reshape(Shape to) const;
  /// Rows [begin, end) of dim 0.
  ConstView rows(std::int64_t begin, std::int64_t end) const;
};

/// Writable view.
struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape{0};
  Device device{};

  operator ConstView() const { return {data, dtype, shape, device}; }
  bool empty() const { return shape.numel() == 0; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(shape.numel()) * size_of(dtype); }

  template <class T>
  T* as() const {
    HADAL_CHECK(dtype == kDTypeOf<T>, "view of {} written as {}", name_of(dtype), name_of(kDTypeOf<T>));
    return static_cast<T*>(data);
  }
  template <class T>
  std::span<T> span() const {
    HADAL_CHECK(device.is_cpu(), "host code writes memory of {}", name_of(device));
    return {as<T>(), static_cast<std::size_t>(numel())};
  }
  View reshape(Shape to) const;
  View rows(std::int64_t begin, std::int64_t end) const;
};

/// Owns its memory; movable, not copyable (`clone` copies on purpose).
class Tensor {
 public:
  Tensor() = default;
  ~Tensor() { release(); }
  Tensor(Tensor&& other) noexcept { swap(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    if (this != &other) {
      release();
      swap(other);
    }
    return *this;
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  /// Contents undefined.
  static Tensor empty(Shape shape, DType dtype, Device device = kCpu);
  static Tensor empty(Shape shape, Storage storage) { return empty(shape, storage.dtype, storage.device); }
  /// All bytes zero.
  static Tensor zeros(Shape shape, DType dtype, Device device = kCpu);
  static Tensor zeros(Shape shape, Storage storage) { return zeros(shape, storage.dtype, storage.device); }

  bool defined() const { return view_.data != nullptr; }
  const Shape& shape() const { return view_.shape; }
  DType dtype() const { return view_.dtype; }
  Device device() const { return view_.device; }
  std::int64_t numel() const { return view_.numel(); }
  std::size_t bytes() const { return view_.bytes(); }

  View view() { return view_; }
  ConstView view() const { return view_; }
  operator View() { return view_; }
  operator ConstView() const { return view_; }

  template <class T>
  T* as() {
    return view_.as<T>();
  }
  template <class T>
  const T* as() const {
    return static_cast<ConstView>(view_).as<T>();
  }
  template <class T>
  std::span<T> span() {
    return view_.span<T>();
  }
  template <class T>
  std::span<const T> span() const {
    return static_cast<ConstView>(view_).span<T>();
  }

  /// Both in the order of the device's compute stream (core/copy.h).
  void fill_zero();
  Tensor clone() const;
  /// Frees the memory now.
  void reset() { release(); }

 private:
  void release() noexcept;
  void swap(Tensor& other) noexcept { std::swap(view_, other.view_); }

  View view_{};
};

}  // namespace hadal
