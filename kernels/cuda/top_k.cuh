// The largest of up to 32 * Parts values, one after the other, chosen by one warp as the router needs it: value descending, ties to the
// lower index; NaN and -inf never before a number.
//
// Value i of a row lies on lane i % 32 as its element i / 32.
#pragma once

#include "core/error.h"
#include "kernels/cuda/device_math.cuh"

namespace hadal::kernels::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

/// Rises with the value; 0 for NaN and -inf, and for nothing else.
__device__ inline unsigned choice_key(float value) {
  if (!(value > -INFINITY)) return 0;
  const unsigned bits = __float_as_uint(value + 0.0f);  // -0 ties with 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

template <int Parts>
struct Choices {
  unsigned key[Parts];  ///< 0: not to be chosen while there are others
  unsigned free;        ///< bit i: this lane's element i exists and is not taken

  /// `count` values exist, none is taken.
  __device__ void reset(int count) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    free = 0;
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      if (i * kWarp + lane < count) free |= 1u << i;
    }
  }

  /// Index of the largest, the lowest of equal ones; where no key is left, the lowest index that is free. The whole warp calls, each
  /// lane gets the same answer.
  __device__ int take_largest() {
    const unsigned lane = threadIdx.x % kWarp;
    unsigned best = key[0];
#pragma unroll
    for (int i = 1; i < Parts; ++i) best = max(best, key[i]);
    const unsigned top = __reduce_max_sync(kAllLanes, best);
    unsigned at = ~0u;
    if (top == 0) {
      if (free != 0) at = static_cast<unsigned>(__ffs(static_cast<int>(free)) - 1) * kWarp + lane;
    } else {
#pragma unroll
      for (int i = Parts - 1; i >= 0; --i) {
        if (key[i] == top) at = static_cast<unsigned>(i) * kWarp + lane;
      }
    }
    const unsigned taken = __reduce_min_sync(kAllLanes, at);
    if (at == taken) free &= ~(1u << taken / kWarp);
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      if (static_cast<unsigned>(i) * kWarp + lane == taken) key[i] = 0;
    }
    return static_cast<int>(taken);
  }
};

/// Calls body.template operator()<Parts>() with Parts * 32 >= count.
template <class Body>
void visit_parts(std::int64_t count, Body&& body) {
  HADAL_CHECK(count <= 16 * kWarp, "{} experts, of which the CUDA router takes up to {}", count, 16 * kWarp);
  if (count <= 2 * kWarp) {
    body.template operator()<2>();
  } else if (count <= 4 * kWarp) {
    body.template operator()<4>();
  } else if (count <= 8 * kWarp) {
    body.template operator()<8>();
  } else {
    body.template operator()<16>();
  }
}

}  // namespace hadal::kernels::cuda
