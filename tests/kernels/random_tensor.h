// Operands of an op's test on the CPU.
#pragma once

#include <cstdint>

#include "core/rng.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// Normal values, times `size`, of a stream of their own for each seed.
template <class T>
Tensor random_tensor(Shape shape, std::uint64_t seed, double size = 1) {
  const Random random(seed, RandomPurpose::kInit, seed);
  Tensor tensor = Tensor::empty(shape, kDTypeOf<T>);
  std::uint64_t i = 0;
  for (T& value : tensor.span<T>()) value = static_cast<T>(size * random.normal(i++));
  return tensor;
}

}  // namespace hadal::kernels
