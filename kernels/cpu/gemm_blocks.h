// How one matrix product is cut into blocks for the caches and into tasks for threads. Shared by gemm_tile, gemm and
// grouped_gemm; private to kernels/cpu.
//
//   k     blocks of kDepth: one chain of multiply-adds each, added to C in order
//   n     panels of the micro-kernel's width; B is packed once: [k block][panel][depth][panel width]
//   m     strips of nearly equal height, so that no row count leaves a thin rest
//
// A strip (14 x 512 f32 = 28 KB) stays in the first-level cache while the panels of a column block pass from the second.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/simd/gemm_micro.h"
#include "kernels/cpu/transpose.h"

namespace hadal::kernels::cpu {

/// Terms of one chain: part of the definition of the result's bits.
template <class T>
inline constexpr std::int64_t kDepth = 2048 / static_cast<std::int64_t>(sizeof(T));

/// Rows of a stored matrix that are packed together: divides kDepth.
inline constexpr std::int64_t kPackRows = 16;

/// Products of at most this many rows read B as stored.
inline constexpr std::int64_t kThinRows = 4;

/// m rows as strips of at most `rows` whose heights differ by at most one.
struct Strips {
  std::int64_t count = 0, height = 0, taller = 0;  ///< the first `taller` strips have height + 1

  Strips(std::int64_t m, std::int64_t rows) {
    if (m == 0) return;
    count = (m + rows - 1) / rows;
    height = m / count;
    taller = m % count;
  }
  std::int64_t begin(std::int64_t strip) const { return strip * height + std::min(strip, taller); }
};

/// Strips, or other units, shared out as `wanted` tasks or more of nearly equal size, at most `largest` each. Any number of tasks
/// gives the same bits, so it may follow the number of threads.
struct Pieces {
  std::int64_t units, count;

  Pieces(std::int64_t units_in, std::int64_t wanted, std::int64_t largest)
      : units(units_in), count(std::min(units, std::max(wanted, (units + largest - 1) / largest))) {}
  std::int64_t begin(std::int64_t piece) const { return units * piece / count; }
};

/// Columns of a packed B: n rounded up to the width of its last panel.
template <class T>
std::int64_t packed_width(std::int64_t n) {
  const std::int64_t panel = simd::gemm_micro<T>().panel, rest = n % panel;
  return n - rest + (rest == 0 ? 0 : (rest > panel / 2 ? panel : panel / 2));
}

template <class T>
std::int64_t panel_count(std::int64_t n) {
  const std::int64_t panel = simd::gemm_micro<T>().panel;
  return (n + panel - 1) / panel;
}

/// Packing op(B)[k, n] is cut into units for threads, along the rows as stored: panels when transposed, else groups of k rows.
template <class T>
std::int64_t pack_units(Transpose transpose_b, std::int64_t n, std::int64_t k) {
  return transpose_b == Transpose::kYes ? panel_count<T>(n) : (k + kPackRows - 1) / kPackRows;
}
/// Packs units [first, last) into the packed buffer of the whole B.
template <class T>
void pack_part(Transpose transpose_b, std::int64_t n, std::int64_t k, const T* b, std::int64_t ldb, T* packed, std::int64_t first,
               std::int64_t last);

/// Rows of A up to which packing a B that can be read as stored does not pay.
inline constexpr std::int64_t kStoredRows = 1024;

/// Whether to read B as stored. It can be when it is not transposed, its panels are whole and its rows do not fall on the same
/// cache sets; the gradient of a weight then always does, since its B is activations, used once.
template <class T>
bool reads_stored(Transpose transpose_a, Transpose transpose_b, std::int64_t m, std::int64_t n, std::int64_t ldb) {
  const std::int64_t panel = simd::gemm_micro<T>().panel, rest = n % panel;
  return transpose_b == Transpose::kNo && (rest == 0 || 2 * rest == panel) &&
         ldb * static_cast<std::int64_t>(sizeof(T)) % 4096 != 0 && (transpose_a == Transpose::kYes || m <= kStoredRows);
}

/// One product with a packed B or one as stored.
template <class T>
struct BlockedProduct {
  Transpose transpose_a;
  std::int64_t m, n, k;
  T alpha;
  const T* a;
  std::int64_t lda;
  const T* b;
  T beta;
  T* c;
  std::int64_t ldc;
  std::int64_t ldb = 0;  ///< 0: b is packed; else b is as stored, which reads_stored must allow
};

/// Computes strips [first_strip, last_strip) of `strips` by panels [first_panel, last_panel): any cut gives the same bits.
template <class T>
void multiply_block(const BlockedProduct<T>& p, const Strips& strips, std::int64_t first_strip, std::int64_t last_strip,
                    std::int64_t first_panel, std::int64_t last_panel);

/// Whether op(A)[m, k] op(B) takes the path without packing.
inline bool is_thin(std::int64_t m, Transpose transpose_a, Transpose transpose_b) {
  return m <= kThinRows && !(transpose_a == Transpose::kYes && transpose_b == Transpose::kYes);
}

/// The product of at most kThinRows rows, columns [0, n); cutting n into multiples of 4 leaves the bits alone.
template <class T>
void multiply_thin(Transpose transpose_a, Transpose transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
                   const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc);

}  // namespace hadal::kernels::cpu
