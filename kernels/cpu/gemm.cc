#include "kernels/gemm.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/dispatch.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kRows = 16;

void gemm(Stream&, const Gemm& args) {
  visit_float(args.c.dtype, [&]<class T>() {
    const bool ta = args.transpose_a, tb = args.transpose_b;
    const std::int64_t m = args.c.shape[0], n = args.c.shape[1], k = args.a.shape[ta ? 0 : 1];
    const std::int64_t lda = args.lda != 0 ? args.lda : args.a.shape[1], ldb = args.ldb != 0 ? args.ldb : args.b.shape[1];
    const std::int64_t ldc = args.ldc != 0 ? args.ldc : n;
    const T* a = args.a.as<T>();
    const T* b = args.b.as<T>();
    T* c = args.c.as<T>();
    parallel_ranges(m, kRows, [&](std::int64_t begin, std::int64_t end) {
      cpu::gemm_tile<T>(cpu::Transpose{ta}, cpu::Transpose{tb}, end - begin, n, k, static_cast<T>(args.alpha),
                        ta ? a + begin : a + begin * lda, lda, b, ldb, static_cast<T>(args.beta), c + begin * ldc, ldc);
    });
  });
}

const RegisterCpu<Gemm> registered{gemm};

}  // namespace
}  // namespace hadal::kernels
