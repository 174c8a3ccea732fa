// The inner loops of attention on the CPU: small matrix products on padded scratch, the online softmax of a strip of rows and
// its gradient. Scores are in base 2 (log2 e is folded into q), so that a probability is one exp2.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// Rows that go through a softmax together.
inline constexpr std::int64_t kStripRows = 8;

/// Padded means: leading dimensions and n are multiples of `lanes`, memory beyond the used columns exists.
template <class T>
struct AttentionTiles {
  std::int64_t lanes;  ///< elements of a vector register
  /// to[r * ld + c] = factor * from[r * stride + c], c < width; zeros from there to `padded` >= width.
  void (*pack_rows)(std::int64_t rows, std::int64_t width, const T* from, std::int64_t stride, T factor, T* to, std::int64_t ld,
                    std::int64_t padded);
  /// to[c * ld + r] = from[r * stride + c], c < width; zeros up to the next multiple of `lanes` in r.
  void (*pack_columns)(std::int64_t rows, std::int64_t width, const T* from, std::int64_t stride, T* to, std::int64_t ld);
  /// Rows of `width` (padded) elements by index: to[i] = from[index[i]]; to[index[i]] = from[i]; to[index[i]] += from[i].
  void (*gather)(std::int64_t rows, const std::int32_t* index, std::int64_t width, const T* from, T* to);
  void (*scatter)(std::int64_t rows, const std::int32_t* index, std::int64_t width, const T* from, T* to);
  void (*scatter_add)(std::int64_t rows, const std::int32_t* index, std::int64_t width, const T* from, T* to);
  /// result[r] = <a[r], b[r]>, rows <= kStripRows.
  void (*row_dots)(std::int64_t rows, std::int64_t width, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* result);
  /// s[r, j] = (accumulate ? s : 0) + <q[r], k[j]> for few rows, where transposing the keys first would not pay.
  void (*scores)(std::int64_t rows, std::int64_t keys, std::int64_t width, const T* q, std::int64_t ldq, const T* k,
                 std::int64_t ldk, T* s, std::int64_t lds, bool accumulate);
  /// C[m, n] = (accumulate ? C : 0) + A[m, k] B[k, n], A row-major; n padded.
  void (*gemm)(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c,
               std::int64_t ldc, bool accumulate);
  /// The same with A stored [k, m].
  void (*gemm_ta)(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
                  T* c, std::int64_t ldc, bool accumulate);
  /// Scores s[rows, n] become 2^(s - max) with the running max of the row; row_sum and o[rows, width] are rescaled to it.
  /// Masked scores are -inf; rows without a visible key get zeros and keep max = -inf. rows <= kStripRows; n and width padded.
  /// row_max and row_sum hold kStripRows elements.
  void (*softmax)(std::int64_t rows, std::int64_t n, T* s, std::int64_t lds, T* row_max, T* row_sum, T* o, std::int64_t ldo,
                  std::int64_t width);
  /// s becomes p = 2^(s - lse), dp becomes p (dp - delta). n padded.
  void (*softmax_gradient)(std::int64_t rows, std::int64_t n, T* s, T* dp, std::int64_t ld, const T* lse, const T* delta);
  /// s becomes 2^(s - lse). n padded.
  void (*probabilities)(std::int64_t n, T* s, T lse);
};

/// Table for the active instruction set; T = float or double.
template <class T>
const AttentionTiles<T>& attention_tiles();

}  // namespace hadal::kernels::simd
