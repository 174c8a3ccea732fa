// The inner loops of the matrix product: a strip of C a few rows high, and the packing of both operands.
//
// A strip is up to `rows` rows of C. Its A comes in one of two forms: kRows, rows as stored (element (i, p) at i * step + p),
// or kColumns, transposed or packed (element (i, p) at p * step + i). B is cut into panels of `panel` columns, packed as
// [k][panel]; a last panel of at most panel / 2 columns is packed as [k][panel / 2]; unused columns are zero. A B whose last
// panel is whole (panel or panel / 2 columns) may also be read as stored. Every element of C is one chain of multiply-adds over p
// = 0 .. k - 1, whatever the strip's height.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// C[h, n] = alpha A[h, k] B[k, n] + beta C (beta = 0 does not read C).
template <class T>
struct GemmStrip {
  std::int64_t n, k;
  const T* a;
  std::int64_t a_step;
  const T* b;        ///< packed panels, one after the other, or the stored rows
  std::int64_t ldb;  ///< 0: packed; else elements from one stored row to the next
  T* c;
  std::int64_t ldc;
  T alpha, beta;
};

inline constexpr int kMaxStripRows = 16;

template <class T>
struct GemmMicro {
  int rows;                                                    ///< tallest strip
  int panel;                                                   ///< columns of a full panel
  void (*by_rows[kMaxStripRows + 1])(const GemmStrip<T>&);     ///< by height; A as kRows
  void (*by_columns[kMaxStripRows + 1])(const GemmStrip<T>&);  ///< by height; A as kColumns
  /// k rows of h columns, lda apart, to [k][h].
  void (*pack_a[kMaxStripRows + 1])(std::int64_t k, const T* a, std::int64_t lda, T* packed);
  /// One panel of n <= panel columns out of B[k, n] as stored, or transposed as B[n, k].
  void (*pack_b)(std::int64_t n, std::int64_t k, const T* b, std::int64_t ldb, T* packed);
  void (*pack_b_transposed)(std::int64_t n, std::int64_t k, const T* b, std::int64_t ldb, T* packed);
  /// C[m, n] = alpha A B + beta C for few rows, B as stored and read once. A element (i, p) at i * row + p * column.
  void (*thin)(std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a, std::int64_t a_row, std::int64_t a_column,
               const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc);
  /// The same with B stored [n, k] and A's rows contiguous.
  void (*thin_transposed)(std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a, std::int64_t lda, const T* b,
                          std::int64_t ldb, T beta, T* c, std::int64_t ldc);
};

template <class T>
const GemmMicro<T>& gemm_micro();

}  // namespace hadal::kernels::simd
