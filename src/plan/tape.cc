#include "plan/tape.h"

#include <algorithm>

#include "core/allocator.h"

namespace hadal::plan {

Held Tape::take(std::int64_t numel, DType dtype) {
  const auto bytes = static_cast<std::int64_t>(block_bytes(static_cast<std::size_t>(numel) * size_of(dtype)));
  live_ += bytes;
  peak_ = std::max(peak_, live_);
  return {*this, bytes};
}

}  // namespace hadal::plan
