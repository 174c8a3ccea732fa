#include "comm/ordered_sum.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/parallel_for.h"

namespace hadal::comm {
namespace {

/// Elements added at a time: the block of the result stays in the first-level cache while the parts stream past.
constexpr std::int64_t kBlock = 2048;
/// Elements below which waking other threads costs more than it saves.
constexpr std::int64_t kThreadGrain = 64 * kBlock;

template <class T>
T add(T a, T b) {
  return a + b;
}
template <>
std::int64_t add(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}

template <class T>
void sum_typed(T* out, std::span<const void* const> parts, std::int64_t numel) {
  parallel_ranges(numel, kThreadGrain, [&](std::int64_t range_begin, std::int64_t range_end) {
    for (std::int64_t begin = range_begin; begin < range_end; begin += kBlock) {
      const std::int64_t count = std::min(kBlock, range_end - begin);
      T* block = out + begin;
      const T* first = static_cast<const T*>(parts[0]) + begin;
      if (first != block) std::memcpy(block, first, static_cast<std::size_t>(count) * sizeof(T));
      for (std::size_t part = 1; part < parts.size(); ++part) {
        const T* values = static_cast<const T*>(parts[part]) + begin;
        for (std::int64_t i = 0; i < count; ++i) block[i] = add(block[i], values[i]);
      }
    }
  });
}

}  // namespace

void ordered_sum(DType dtype, void* out, std::span<const void* const> parts, std::int64_t numel) {
  HADAL_CHECK(!parts.empty());
  switch (dtype) {
    case DType::kF64:
      return sum_typed(static_cast<double*>(out), parts, numel);
    case DType::kF32:
      return sum_typed(static_cast<float*>(out), parts, numel);
    case DType::kI64:
      return sum_typed(static_cast<std::int64_t*>(out), parts, numel);
    default:
      HADAL_CHECK(false, "sum over ranks of {}", name_of(dtype));
  }
}

Segment segment_of(std::int64_t numel, int rank, int size) {
  constexpr std::int64_t kGrain = 64;
  const std::int64_t grains = (numel + kGrain - 1) / kGrain;
  const auto edge = [&](int index) { return std::min(numel, grains * index / size * kGrain); };
  return {edge(rank), edge(rank + 1)};
}

}  // namespace hadal::comm
