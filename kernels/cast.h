// From one float dtype to another, rounding to nearest even: y = x, or y += x with `accumulate` (the sum is rounded once).
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// Among f64, f32 and bf16 on the CPU, f32 and bf16 on CUDA. x and y do not overlap.
struct Cast {
  static constexpr const char* kName = "cast";
  ConstView x;              ///< any shape
  View y;                   ///< as many elements; read only with `accumulate`
  bool accumulate = false;  ///< add to y
};

void run(Stream& stream, const Cast& args);

}  // namespace hadal::kernels
