#include "kernels/gemm.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "core/tensor.h"
#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/dispatch.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using cpu::Transpose;
using std::int64_t;

// Below this many multiply-adds a second thread costs more than it brings.
constexpr int64_t kSerialWork = 200'000;
// Largest packed B held at once.
constexpr int64_t kPackedBytes = int64_t{16} << 20;
// Strips of one task: their A (112 x 512 f32 = 229 KB) shares the second-level cache with a block of B.
constexpr int64_t kTaskStrips = 8;

template <class T>
struct Product {
  Transpose ta, tb;
  int64_t m, n, k;
  T alpha;
  const T* a;
  int64_t lda;
  const T* b;
  int64_t ldb;
  T beta;
  T* c;
  int64_t ldc;
};

template <class T>
void thin(const Product<T>& p) {
  // Every weight is read once: cut by columns, in multiples of 64 so that cuts do not change any sum's order.
  const int64_t step = std::max<int64_t>(64, kSerialWork / 4 / (p.k * p.m) / 64 * 64);
  parallel_ranges(p.n, step, [&](int64_t begin, int64_t end) {
    cpu::multiply_thin<T>(p.ta, p.tb, p.m, end - begin, p.k, p.alpha, p.a, p.lda,
                          p.tb == Transpose::kYes ? p.b + begin * p.ldb : p.b + begin, p.ldb, p.beta, p.c + begin, p.ldc);
  });
}

/// Shares out tasks of strips, and of panels when rows are few; b packed (ldb 0) or as stored.
template <class T>
void share_out(const Product<T>& p, const T* b, int64_t ldb) {
  const int64_t threads = num_threads(), panels = cpu::panel_count<T>(p.n);
  const cpu::Strips strips(p.m, simd::gemm_micro<T>().rows);
  const cpu::Pieces rows(strips.count, threads == 1 ? 1 : 4 * threads, kTaskStrips);
  const cpu::Pieces columns(panels, threads == 1 ? 1 : std::max<int64_t>(2 * threads / rows.count, 1), panels);
  const cpu::BlockedProduct<T> product{p.ta, p.m, p.n, p.k, p.alpha, p.a, p.lda, b, p.beta, p.c, p.ldc, ldb};
  parallel_for(rows.count * columns.count, [&](int64_t task) {
    const int64_t row = task / columns.count, column = task % columns.count;
    cpu::multiply_block(product, strips, rows.begin(row), rows.begin(row + 1), columns.begin(column), columns.begin(column + 1));
  });
}

/// Threads pack B together, then multiply.
template <class T>
void packed(const Product<T>& p, T* buffer) {
  const int64_t threads = num_threads(), units = cpu::pack_units<T>(p.tb, p.n, p.k);
  parallel_ranges(units, threads == 1 ? units : std::max<int64_t>(1, units / (2 * threads)),
                  [&](int64_t first, int64_t last) { cpu::pack_part(p.tb, p.n, p.k, p.b, p.ldb, buffer, first, last); });
  share_out<T>(p, buffer, 0);
}

template <class T>
void multiply(const Product<T>& p) {
  if (p.k == 0 || p.m * p.n * p.k <= kSerialWork) {
    return cpu::gemm_tile(p.ta, p.tb, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, p.c, p.ldc);
  }
  if (cpu::is_thin(p.m, p.ta, p.tb)) return thin(p);
  if (cpu::reads_stored<T>(p.ta, p.tb, p.m, p.n, p.ldb)) return share_out(p, p.b, p.ldb);
  // A long sum over few rows (the gradient of a weight) goes block by block of k, while packed B is still in a cache; otherwise
  // B is packed whole and a task keeps its rows of C in the second-level cache.
  const int64_t depth = p.k > p.m ? cpu::kDepth<T> : p.k;
  const int64_t panel = simd::gemm_micro<T>().panel;
  const int64_t columns = std::max<int64_t>(kPackedBytes / (depth * panel * static_cast<int64_t>(sizeof(T))), 1) * panel;
  Tensor buffer = Tensor::empty({cpu::packed_size<T>(std::min(columns, p.n), std::min(depth, p.k))}, kDTypeOf<T>);
  for (int64_t j = 0; j < p.n; j += columns) {
    for (int64_t k = 0; k < p.k; k += depth) {
      Product<T> part = p;
      part.n = std::min(columns, p.n - j);
      part.k = std::min(depth, p.k - k);
      part.a += p.ta == Transpose::kYes ? k * p.lda : k;
      part.b += p.tb == Transpose::kYes ? j * p.ldb + k : k * p.ldb + j;
      part.c += j;
      if (k > 0) part.beta = T{1};
      packed(part, buffer.as<T>());
    }
  }
}

void gemm(Stream&, const Gemm& args) {
  visit_float(args.c.dtype, [&]<class T>() {
    multiply<T>({Transpose{args.transpose_a}, Transpose{args.transpose_b}, args.c.shape[0], args.c.shape[1],
                 args.a.shape[args.transpose_a ? 0 : 1], static_cast<T>(args.alpha), args.a.as<T>(),
                 args.lda != 0 ? args.lda : args.a.shape[1], args.b.as<T>(), args.ldb != 0 ? args.ldb : args.b.shape[1],
                 static_cast<T>(args.beta), args.c.as<T>(), args.ldc != 0 ? args.ldc : args.c.shape[1]});
  });
}

const RegisterCpu<Gemm> registered{gemm};

}  // namespace
}  // namespace hadal::kernels
