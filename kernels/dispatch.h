// Choice of the template from the dtype, inside a backend file.
#pragma once

#include "core/dtype.h"
#include "core/error.h"

namespace hadal::kernels {

/// Calls body.template operator()<T>() with T = float or double.
template <class Body>
void visit_float(DType dtype, Body&& body) {
  if (dtype == DType::kF32) {
    body.template operator()<float>();
  } else if (dtype == DType::kF64) {
    body.template operator()<double>();
  } else {
    throw ContractError(fmt::format("dtype {} where f32 or f64 is computed", name_of(dtype)));
  }
}

}  // namespace hadal::kernels
