#include "kernels/cpu/gemm_tile.h"

#include <algorithm>

#include "kernels/cpu/simd/vector_ops.h"

namespace hadal::kernels::cpu {
namespace {

using std::int64_t;

template <class T>
void clear(int64_t n, T beta, T* row) {
  if (beta == T{0}) {
    std::fill(row, row + n, T{0});
  } else if (beta != T{1}) {
    simd::vector_ops<T>().scale(n, beta, row);
  }
}

}  // namespace

template <class T>
void gemm_tile(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
               const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  const auto& ops = simd::vector_ops<T>();
  const int64_t row_a = transpose_a == Transpose::kYes ? 1 : lda, column_a = transpose_a == Transpose::kYes ? lda : 1;
  for (int64_t i = 0; i < m; ++i) {
    T* row = c + i * ldc;
    clear(n, beta, row);
    if (transpose_b == Transpose::kYes && transpose_a == Transpose::kNo) {
      for (int64_t j = 0; j < n; ++j) row[j] += alpha * ops.dot(k, a + i * lda, b + j * ldb);
    } else if (transpose_b == Transpose::kYes) {
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t p = 0; p < k; ++p) row[j] += alpha * a[i * row_a + p * column_a] * b[j * ldb + p];
      }
    } else {
      for (int64_t p = 0; p < k; ++p) ops.axpy(n, alpha * a[i * row_a + p * column_a], b + p * ldb, row);
    }
  }
}

template <class T>
int64_t packed_size(int64_t n, int64_t k) {
  return n * k;
}

template <class T>
void pack_b(Transpose transpose_b, int64_t n, int64_t k, const T* b, int64_t ldb, T* packed) {
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < n; ++j) packed[p * n + j] = transpose_b == Transpose::kYes ? b[j * ldb + p] : b[p * ldb + j];
  }
}

template <class T>
void gemm_tile_packed(Transpose transpose_a, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* packed_b,
                      T beta, T* c, int64_t ldc) {
  gemm_tile(transpose_a, Transpose::kNo, m, n, k, alpha, a, lda, packed_b, n, beta, c, ldc);
}

#define HADAL_INSTANTIATE(T)                                                                                              \
  template void gemm_tile<T>(Transpose, Transpose, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, int64_t, T, \
                             T*, int64_t);                                                                                \
  template int64_t packed_size<T>(int64_t, int64_t);                                                                      \
  template void pack_b<T>(Transpose, int64_t, int64_t, const T*, int64_t, T*);                                            \
  template void gemm_tile_packed<T>(Transpose, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, T, T*, int64_t);
HADAL_INSTANTIATE(float)
HADAL_INSTANTIATE(double)
#undef HADAL_INSTANTIATE

}  // namespace hadal::kernels::cpu
