// Sums over the rows of a matrix, the second half of sums that the blocks of a kernel have begun: each block leaves a row of partial
// sums, and these are added in an order that depends on their number alone.
#pragma once

#include <cstdint>

#include "core/stream.h"

namespace hadal::kernels::cuda {

/// sums [width] += the rows of partials [rows, width], on the stream's device. `op`: who asks, for errors.
void add_column_sums(Stream& stream, const char* op, const float* partials, std::int64_t rows, std::int64_t width, float* sums);

}  // namespace hadal::kernels::cuda
