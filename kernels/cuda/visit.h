// Choice of the template from the dtype, inside a CUDA file: f32 and bf16.
#pragma once

#include <cuda_bf16.h>

#include "core/dtype.h"
#include "core/error.h"

namespace hadal::kernels::cuda {

/// Calls body.template operator()<T>() with T = float or __nv_bfloat16.
template <class Body>
void visit(DType dtype, Body&& body) {
  if (dtype == DType::kF32) {
    body.template operator()<float>();
  } else if (dtype == DType::kBf16) {
    body.template operator()<__nv_bfloat16>();
  } else {
    throw ContractError(fmt::format("dtype {} on CUDA, where f32 or bf16 is computed", name_of(dtype)));
  }
}

}  // namespace hadal::kernels::cuda
