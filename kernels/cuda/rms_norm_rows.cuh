// How RMSNorm's rows lie on threads: a row is held by the threads that share it, a warp for narrow rows, a block of 128 to 1024
// threads for wide ones, up to two pieces of 16 bytes a thread. Rows that are not aligned, or wider than that, are read element
// by element, by a block of 256.
#pragma once

#include "core/error.h"
#include "kernels/cuda/floats.cuh"

namespace hadal::kernels::cuda {

using std::int64_t;

inline constexpr int kNormBlock = 256;
inline constexpr int kNormPieces = 2;  ///< of a thread at most

struct NormRows {
  int64_t rows;
  int width;
  int64_t x_stride, d_x_stride;
};

/// Threads of a block in which `RowThreads` share a row.
template <int RowThreads>
inline constexpr int kNormThreads = RowThreads == kWarp || RowThreads == 0 ? kNormBlock : RowThreads;

template <int RowThreads>
__device__ inline float row_sum(float x) {
  if constexpr (RowThreads == kWarp) {
    return warp_sum(x);
  } else {
    return block_sum<RowThreads>(x);
  }
}

/// body.template operator()<RowThreads>() for the fewest threads whose registers hold a row, 0 where none do.
template <class T, class Body>
void visit_row_threads(int64_t width, bool aligned, Body&& body) {
  const int64_t per_thread = int64_t{kNormPieces} * kPiece<T>;
  if (!aligned || width > 1024 * per_thread) {
    body.template operator()<0>();
  } else if (width > 512 * per_thread) {
    body.template operator()<1024>();
  } else if (width > 256 * per_thread) {
    body.template operator()<512>();
  } else if (width > 128 * per_thread) {
    body.template operator()<256>();
  } else if (width > kWarp * per_thread) {
    body.template operator()<128>();
  } else {
    body.template operator()<kWarp>();
  }
}

inline NormRows norm_rows_of(int64_t rows, int64_t width, int64_t x_stride, int64_t d_x_stride) {
  HADAL_CHECK(width < (int64_t{1} << 30) && rows < (int64_t{1} << 31), "{} rows of {}", rows, width);
  return {rows, static_cast<int>(width), x_stride == 0 ? width : x_stride, d_x_stride == 0 ? width : d_x_stride};
}

}  // namespace hadal::kernels::cuda
