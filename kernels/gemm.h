// Dense matrix product, row-major: C[m, n] = alpha * op(A)[m, k] * op(B)[k, n] + beta * C.
//
// Shapes: a [m, k] (or [k, m] with transpose_a), b [k, n] (or [n, k] with transpose_b), c [m, n]; rank-2 views. a and b of one
// dtype, c of the same or of its accumulation dtype: f32 or f64 on the CPU; f32, bf16, or bf16 into f32 on CUDA, with sums in
// f32 (bf16 c with beta: the library may round the product to bf16 before it adds c, which is one rounding more; c in f32 has none of
// it). A leading dimension other than 0 says that the view is a column slice of a wider matrix: elements from one row to the
// next. c overlaps neither a nor b. With beta = 0, c is not read (it may hold anything, NaN included).
//
// Determinism: the same call gives the same bits. On the CPU every element of c is one sum over k in a fixed order (blocks of k,
// each a chain of fused multiply-adds), so its bits depend neither on the thread count nor on which other rows and columns are
// computed beside it, with one exception: products of at most four rows with a transposed b sum by lanes (an order of k of their
// own, still fixed). On CUDA the order is that of the algorithm which cuBLASLt picks for the shape.
#pragma once

#include <cstdint>

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct Gemm {
  static constexpr const char* kName = "gemm";
  ConstView a;  ///< [m, k], or [k, m] with transpose_a
  ConstView b;  ///< [k, n], or [n, k] with transpose_b
  View c;       ///< [m, n]
  bool transpose_a = false;
  bool transpose_b = false;
  double alpha = 1;
  double beta = 0;
  std::int64_t lda = 0;  ///< elements between rows of a as stored; 0 = contiguous
  std::int64_t ldb = 0;
  std::int64_t ldc = 0;
};

void run(Stream& stream, const Gemm& args);

}  // namespace hadal::kernels
