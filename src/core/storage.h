// How the numbers of a layer are held: dtype and device of its matrices and activations.
#pragma once

#include "core/device.h"
#include "core/dtype.h"

namespace hadal {

struct Storage {
  DType dtype = DType::kF32;
  Device device{};

  Storage() = default;
  /// On purpose not explicit: a dtype alone says the CPU.
  Storage(DType of, Device on = kCpu) : dtype(of), device(on) {}

  /// Where sums, statistics, gradients of parameters and small parameters are held (core/dtype.h).
  Storage accumulation() const { return {accumulation_dtype(dtype), device}; }
  bool operator==(const Storage&) const = default;
};

}  // namespace hadal
