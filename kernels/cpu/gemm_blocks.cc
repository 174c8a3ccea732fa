#include "kernels/cpu/gemm_blocks.h"

#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_PICK(GemmMicro, gemm_micro)

namespace hadal::kernels::cpu {
namespace {

using std::int64_t;

// Bytes of packed B that strips of one task pass over again and again: half of a second-level cache.
constexpr int64_t kColumnBlockBytes = 384 << 10;
// Rows of a stored A that lie a multiple of this apart fall on the same sets of the first-level cache.
constexpr int64_t kConflictBytes = 2048;

/// Whether strips read a stored A^T with few panels in place: its rows lie close enough together for the first-level cache, or
/// packing would hardly be used.
template <class T>
bool reads_stored_a(int64_t columns, int64_t depth, int64_t lda) {
  const int64_t panels = columns / simd::gemm_micro<T>().panel;
  return depth >= kDepth<T> / 2 && (panels <= 4 || (panels <= 8 && lda * static_cast<int64_t>(sizeof(T)) <= 1536));
}

/// A of strips [first, last) at k block [depth] as [strip][depth][height].
template <class T>
void pack_strips(const simd::GemmMicro<T>& micro, const Strips& strips, int64_t first, int64_t last, int64_t depth, const T* a,
                 int64_t lda, T* packed) {
  // A few rows of the stored matrix at a time, each read along its length.
  for (int64_t p = 0; p < depth; p += kPackRows) {
    const int64_t rows = std::min(kPackRows, depth - p);
    T* to = packed;
    for (int64_t s = first; s < last; ++s) {
      const int64_t begin = strips.begin(s), height = strips.begin(s + 1) - begin;
      micro.pack_a[height](rows, a + p * lda + begin, lda, to + p * height);
      to += height * depth;
    }
  }
}

/// Strips whose rows are copied side by side.
template <class T>
void copy_strips(const Strips& strips, int64_t first, int64_t last, int64_t depth, const T* a, int64_t lda, T* copy) {
  for (int64_t i = strips.begin(first); i < strips.begin(last); ++i) {
    copy = std::copy_n(a + i * lda, depth, copy);
  }
}

}  // namespace

template <class T>
void pack_part(Transpose transpose_b, int64_t n, int64_t k, const T* b, int64_t ldb, T* packed, int64_t first, int64_t last) {
  const auto& micro = simd::gemm_micro<T>();
  const int64_t width = packed_width<T>(n), panels = panel_count<T>(n);
  const auto columns_of = [&](int64_t panel) { return std::min<int64_t>(micro.panel, n - panel * micro.panel); };
  if (transpose_b == Transpose::kYes) {
    for (int64_t panel = first; panel < last; ++panel) {
      const int64_t column = panel * micro.panel;
      for (int64_t p = 0; p < k; p += kDepth<T>) {
        const int64_t depth = std::min(kDepth<T>, k - p);
        micro.pack_b_transposed(columns_of(panel), depth, b + column * ldb + p, ldb, packed + p * width + column * depth);
      }
    }
    return;
  }
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t p = unit * kPackRows, rows = std::min(kPackRows, k - p);
    const int64_t block = p / kDepth<T> * kDepth<T>, depth = std::min(kDepth<T>, k - block);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t column = panel * micro.panel, columns = columns_of(panel), panel_width = packed_width<T>(columns);
      micro.pack_b(columns, rows, b + p * ldb + column, ldb, packed + block * width + column * depth + (p - block) * panel_width);
    }
  }
}

template <class T>
void multiply_block(const BlockedProduct<T>& p, const Strips& strips, int64_t first_strip, int64_t last_strip,
                    int64_t first_panel, int64_t last_panel) {
  const auto& micro = simd::gemm_micro<T>();
  thread_local Scratch scratch;
  const int64_t width = packed_width<T>(p.n), rows = strips.begin(last_strip) - strips.begin(first_strip);
  const int64_t end_column = std::min(p.n, last_panel * micro.panel);
  const bool columns_form = p.transpose_a == Transpose::kYes;
  for (int64_t k0 = 0; k0 < p.k; k0 += kDepth<T>) {
    const int64_t depth = std::min(kDepth<T>, p.k - k0);
    const T beta = k0 == 0 ? p.beta : T{1};
    const int64_t block =
        std::max<int64_t>(1, kColumnBlockBytes / (depth * micro.panel * static_cast<int64_t>(sizeof(T)))) * micro.panel;
    const int64_t columns = end_column - first_panel * micro.panel;
    const T* a = columns_form ? p.a + k0 * p.lda : p.a + k0;
    T* packed_a = nullptr;
    if (columns_form) {
      if (!reads_stored_a<T>(columns, depth, p.lda)) {
        packed_a = scratch.get<T>(static_cast<std::size_t>(rows * depth));
        pack_strips(micro, strips, first_strip, last_strip, depth, a, p.lda, packed_a);
      }
    } else if (columns > 2 * micro.panel && p.lda * static_cast<int64_t>(sizeof(T)) % kConflictBytes == 0 && p.lda != depth) {
      packed_a = scratch.get<T>(static_cast<std::size_t>(rows * depth));
      copy_strips(strips, first_strip, last_strip, depth, a, p.lda, packed_a);
    }
    for (int64_t column = first_panel * micro.panel; column < end_column; column += block) {
      simd::GemmStrip<T> strip;
      strip.n = std::min(block, end_column - column);
      strip.k = depth;
      strip.b = p.ldb != 0 ? p.b + k0 * p.ldb + column : p.b + k0 * width + column * depth;
      strip.ldb = p.ldb;
      strip.ldc = p.ldc;
      strip.alpha = p.alpha;
      strip.beta = beta;
      const T* packed_strip = packed_a;
      for (int64_t s = first_strip; s < last_strip; ++s) {
        const int64_t begin = strips.begin(s), height = strips.begin(s + 1) - begin;
        strip.c = p.c + begin * p.ldc + column;
        strip.a = packed_a != nullptr ? packed_strip : a + begin * (columns_form ? 1 : p.lda);
        if (columns_form) {
          strip.a_step = packed_a != nullptr ? height : p.lda;
          micro.by_columns[height](strip);
        } else {
          strip.a_step = packed_a != nullptr ? depth : p.lda;
          micro.by_rows[height](strip);
        }
        if (packed_a != nullptr) packed_strip += height * depth;
      }
    }
  }
}

template <class T>
void multiply_thin(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a,
                   int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  const auto& micro = simd::gemm_micro<T>();
  if (transpose_b == Transpose::kYes) {
    micro.thin_transposed(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    return;
  }
  // The same blocks of k, so the same sums, as with packed operands.
  const bool transposed = transpose_a == Transpose::kYes;
  for (int64_t k0 = 0; k0 < k; k0 += kDepth<T>) {
    micro.thin(m, n, std::min(kDepth<T>, k - k0), alpha, transposed ? a + k0 * lda : a + k0, transposed ? 1 : lda,
               transposed ? lda : 1, b + k0 * ldb, ldb, k0 == 0 ? beta : T{1}, c, ldc);
  }
}

#define HADAL_INSTANTIATE(T)                                                                                                  \
  template void pack_part<T>(Transpose, int64_t, int64_t, const T*, int64_t, T*, int64_t, int64_t);                           \
  template void multiply_block<T>(const BlockedProduct<T>&, const Strips&, int64_t, int64_t, int64_t, int64_t);               \
  template void multiply_thin<T>(Transpose, Transpose, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, int64_t, T, \
                                 T*, int64_t);
HADAL_INSTANTIATE(float)
HADAL_INSTANTIATE(double)
#undef HADAL_INSTANTIATE

}  // namespace hadal::kernels::cpu
