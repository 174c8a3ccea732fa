#include "kernels/gemm.h"

#include "kernels/op.h"

namespace hadal::kernels {
namespace {

void check_matrix(const char* name, const ConstView& view, std::int64_t ld, DType dtype) {
  HADAL_CHECK(view.shape.rank() == 2, "gemm {} has shape {}", name, view.shape.str());
  HADAL_CHECK(view.dtype == dtype, "gemm {} is {} where {} is wanted", name, name_of(view.dtype), name_of(dtype));
  HADAL_CHECK(ld == 0 || ld >= view.shape[1], "gemm {} has shape {} and leading dimension {}", name, view.shape.str(), ld);
}

}  // namespace

void run(Stream& stream, const Gemm& args) {
  const DType dtype = args.a.dtype;
  check_matrix("a", args.a, args.lda, dtype);
  check_matrix("b", args.b, args.ldb, dtype);
  check_matrix("c", args.c, args.ldc, args.c.dtype == dtype ? dtype : accumulation_dtype(dtype));
  const std::int64_t m = args.a.shape[args.transpose_a ? 1 : 0], k = args.a.shape[args.transpose_a ? 0 : 1];
  const std::int64_t n = args.b.shape[args.transpose_b ? 0 : 1];
  HADAL_CHECK(args.b.shape[args.transpose_b ? 1 : 0] == k && args.c.shape == Shape({m, n}), "gemm a {}{} b {}{} c {}",
              args.a.shape.str(), args.transpose_a ? "^T" : "", args.b.shape.str(), args.transpose_b ? "^T" : "",
              args.c.shape.str());
  if (m == 0 || n == 0) return;
  launch(stream, args);
}

}  // namespace hadal::kernels
