// Matrix product over raw pointers, serial on the calling thread: what other CPU kernels (attention tiles, grouped products)
// build on. Row-major; same order of k, so same bits, as kernels/gemm.h. T = float or double.
#pragma once

#include <cstdint>

#include "kernels/cpu/transpose.h"

namespace hadal::kernels::cpu {

/// C[m, n] = alpha op(A)[m, k] op(B)[k, n] + beta C. A is stored [m, k] ([k, m] transposed) with lda elements from row to row,
/// B [k, n] ([n, k] transposed), C [m, n]. beta = 0 does not read C. Sizes may be 0.
template <class T>
void gemm_tile(Transpose transpose_a, Transpose transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a,
               std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc);

/// The right operand in the order in which the micro-kernel reads it. Worth it when one B meets many A.
/// Elements that a packed B[k, n] takes. The buffer should be 64-byte aligned.
template <class T>
std::int64_t packed_size(std::int64_t n, std::int64_t k);
/// Packs op(B)[k, n].
template <class T>
void pack_b(Transpose transpose_b, std::int64_t n, std::int64_t k, const T* b, std::int64_t ldb, T* packed);
/// As gemm_tile with a packed B.
template <class T>
void gemm_tile_packed(Transpose transpose_a, std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a,
                      std::int64_t lda, const T* packed_b, T beta, T* c, std::int64_t ldc);

}  // namespace hadal::kernels::cpu
