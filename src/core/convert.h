// Float conversions on the host that a caller asked for by name: weights of one precision into a model of another.
#pragma once

#include "core/tensor.h"

namespace hadal {

/// Element-wise between f64, f32 and bf16, to nearest even; equal dtypes are copied. Equal shapes. UserError for other dtypes.
void convert_floats(ConstView from, View to);

}  // namespace hadal
