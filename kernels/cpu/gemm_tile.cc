#include "kernels/cpu/gemm_tile.h"

#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/scratch.h"

namespace hadal::kernels::cpu {
namespace {

using std::int64_t;

template <class T>
void scale_rows(int64_t m, int64_t n, T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == T{0} ? T{0} : beta * c[i * ldc + j];
  }
}

}  // namespace

template <class T>
int64_t packed_size(int64_t n, int64_t k) {
  return packed_width<T>(n) * k;
}

template <class T>
void pack_b(Transpose transpose_b, int64_t n, int64_t k, const T* b, int64_t ldb, T* packed) {
  pack_part(transpose_b, n, k, b, ldb, packed, 0, pack_units<T>(transpose_b, n, k));
}

template <class T>
void gemm_tile_packed(Transpose transpose_a, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* packed_b,
                      T beta, T* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return scale_rows(m, n, beta, c, ldc);
  const Strips strips(m, simd::gemm_micro<T>().rows);
  multiply_block(BlockedProduct<T>{transpose_a, m, n, k, alpha, a, lda, packed_b, beta, c, ldc}, strips, 0, strips.count, 0,
                 panel_count<T>(n));
}

template <class T>
void gemm_tile(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
               const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return scale_rows(m, n, beta, c, ldc);
  if (is_thin(m, transpose_a, transpose_b)) {
    return multiply_thin(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
  // Columns whose packed B fits the scratch buffer's bound.
  constexpr int64_t kScratch = (4 << 20) / static_cast<int64_t>(sizeof(T));
  const int64_t panel = simd::gemm_micro<T>().panel, at_once = std::max<int64_t>(kScratch / (k * panel), 1) * panel;
  thread_local Scratch scratch;
  for (int64_t j = 0; j < n; j += at_once) {
    const int64_t columns = std::min(at_once, n - j);
    T* packed = scratch.get<T>(static_cast<std::size_t>(packed_size<T>(columns, k)));
    pack_b(transpose_b, columns, k, transpose_b == Transpose::kYes ? b + j * ldb : b + j, ldb, packed);
    gemm_tile_packed(transpose_a, m, columns, k, alpha, a, lda, packed, beta, c + j, ldc);
  }
}

#define HADAL_INSTANTIATE(T)                                                                                                  \
  template void gemm_tile<T>(Transpose, Transpose, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, int64_t, T, T*, \
                             int64_t);                                                                                        \
  template int64_t packed_size<T>(int64_t, int64_t);                                                                          \
  template void pack_b<T>(Transpose, int64_t, int64_t, const T*, int64_t, T*);                                                \
  template void gemm_tile_packed<T>(Transpose, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, T, T*, int64_t);
HADAL_INSTANTIATE(float)
HADAL_INSTANTIATE(double)
#undef HADAL_INSTANTIATE

}  // namespace hadal::kernels::cpu
