// SwiGLU over the first rows of its views, as many as the device knows.
#pragma once

#include <cstdint>

#include "kernels/swiglu.h"

namespace hadal::kernels::cuda {

/// `end`: on the device, the number of rows; nullptr for all.
void swiglu_forward(Stream& stream, const SwigluForward& args, const std::int64_t* end);

}  // namespace hadal::kernels::cuda
