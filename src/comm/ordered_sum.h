// Sum of several buffers in their order: out[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ...
// The one place where numbers of different ranks meet; bits depend on the parts alone, not on threads or blocks.
#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace hadal::comm {

/// f64, f32, i64 (wraps). `out` may be parts[0]; otherwise it overlaps none. At least one part.
void ordered_sum(DType dtype, void* out, std::span<const void* const> parts, std::int64_t numel);

/// The elements [begin, end) of `numel` that rank `rank` of `size` sums: consecutive, in multiples of 64 elements but the last.
struct Segment {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
Segment segment_of(std::int64_t numel, int rank, int size);

}  // namespace hadal::comm
