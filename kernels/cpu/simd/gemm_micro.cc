#include "kernels/cpu/simd/gemm_micro.h"

#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/transpose_block.h"
#include "kernels/cpu/simd/vector.h"

HADAL_SIMD_TABLE(GemmMicro, gemm_micro)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

using std::int64_t;

// Tile: kRows x 2 vectors. 32 registers hold 28 sums, two vectors of B and one broadcast of A; 16 registers hold 12 sums.
#ifdef HADAL_SIMD_avx512
constexpr int kRows = 14;
#else
constexpr int kRows = 6;
#endif
constexpr int kMaxThin = 4;

// Steps of k by which operands are asked for ahead: B streams from the second- or third-level cache, A too when read as stored.
constexpr int kStepsAhead = 16;

template <class T>
constexpr int kPanel = 2 * kLanesOf<T>;

/// One tile of H rows and W vectors, of which `columns` columns exist; b holds k steps of W vectors, ldb or, when packed, W
/// vectors apart.
template <class T, int H, int W, bool kByColumns>
inline __attribute__((always_inline)) void tile(const GemmStrip<T>& s, const T* b, T* c, int64_t columns) {
  constexpr int kLanes = kLanesOf<T>;
  Vector<T> sums[H][W];
  HADAL_UNROLL
  for (int i = 0; i < H; ++i) {
    HADAL_UNROLL
    for (int j = 0; j < W; ++j) sums[i][j] = Vector<T>{};
  }
  HADAL_UNROLL
  for (int i = 0; i < H; ++i) {
    __builtin_prefetch(c + i * s.ldc, 1);
    if constexpr (W * kLanes * sizeof(T) > 64) __builtin_prefetch(c + i * s.ldc + (W - 1) * kLanes, 1);
  }
  const int64_t row = kByColumns ? 1 : s.a_step, column = kByColumns ? s.a_step : 1;
  const T* a = s.a;
  const int64_t step = s.ldb != 0 ? s.ldb : W * kLanes;
  const int64_t a_ahead = kStepsAhead * column, b_ahead = kStepsAhead * step;
  HADAL_NO_UNROLL
  for (int64_t p = 0; p < s.k; ++p) {
    Vector<T> right[W];
    HADAL_UNROLL
    for (int j = 0; j < W; ++j) right[j] = load(b + j * kLanes);
    HADAL_UNROLL
    for (int i = 0; i < H; ++i) {
      const Vector<T> left = broadcast(a[i * row]);
      HADAL_UNROLL
      for (int j = 0; j < W; ++j) sums[i][j] += left * right[j];
    }
    if constexpr (kByColumns && W == 2) {
      __builtin_prefetch(a + a_ahead);
      __builtin_prefetch(a + a_ahead + H - 1);
    }
    a += column;
    if constexpr (W == 2) {
      __builtin_prefetch(b + b_ahead);
      __builtin_prefetch(b + b_ahead + kLanes);
    }
    b += step;
  }
  if (columns == W * kLanes) {
    if (s.beta == T{0}) {
      HADAL_UNROLL
      for (int i = 0; i < H; ++i) {
        HADAL_UNROLL
        for (int j = 0; j < W; ++j) store(c + i * s.ldc + j * kLanes, sums[i][j] * s.alpha);
      }
    } else {
      HADAL_UNROLL
      for (int i = 0; i < H; ++i) {
        HADAL_UNROLL
        for (int j = 0; j < W; ++j) {
          T* to = c + i * s.ldc + j * kLanes;
          store(to, load(to) * s.beta + sums[i][j] * s.alpha);
        }
      }
    }
    return;
  }
  alignas(64) T partial[H][W * kLanes];
  HADAL_UNROLL
  for (int i = 0; i < H; ++i) {
    HADAL_UNROLL
    for (int j = 0; j < W; ++j) store(&partial[i][j * kLanes], sums[i][j]);
  }
  for (int i = 0; i < H; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      T* to = c + i * s.ldc + j;
      *to = s.beta == T{0} ? partial[i][j] * s.alpha : *to * s.beta + partial[i][j] * s.alpha;
    }
  }
}

template <class T, int H, bool kByColumns>
void strip(const GemmStrip<T>& s) {
  const T* b = s.b;
  int64_t j = 0;
  for (; s.n - j > kLanesOf<T>; j += kPanel<T>) {
    const int64_t left = s.n - j;
    tile<T, H, 2, kByColumns>(s, b, s.c + j, left < kPanel<T> ? left : kPanel<T>);
    b += s.ldb != 0 ? kPanel<T> : s.k * kPanel<T>;
  }
  if (j < s.n) tile<T, H, 1, kByColumns>(s, b, s.c + j, s.n - j);
}

template <class T, int H>
void pack_a(int64_t k, const T* a, int64_t lda, T* packed) {
  for (int64_t p = 0; p < k; ++p) __builtin_memcpy(packed + p * H, a + p * lda, H * sizeof(T));
}

template <class T>
void pack_b(int64_t n, int64_t k, const T* b, int64_t ldb, T* packed) {
  constexpr int kLanes = kLanesOf<T>;
  if (n == kPanel<T>) {
    for (int64_t p = 0; p < k; ++p) {
      store(packed, load(b));
      store(packed + kLanes, load(b + kLanes));
      b += ldb;
      packed += kPanel<T>;
    }
    return;
  }
  const int64_t width = n > kLanes ? kPanel<T> : kLanes;
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < n; ++j) packed[p * width + j] = b[p * ldb + j];
    for (int64_t j = n; j < width; ++j) packed[p * width + j] = T{0};
  }
}

template <class T>
void pack_b_transposed(int64_t n, int64_t k, const T* b, int64_t ldb, T* packed) {
  constexpr int kLanes = kLanesOf<T>;
  const int64_t width = n > kLanes ? kPanel<T> : kLanes;
  const int64_t whole = k / kLanes * kLanes;
  for (int64_t j = 0; j < width; j += kLanes) {
    if (j + kLanes <= n) {
      for (int64_t p = 0; p < whole; p += kLanes) transpose_block(b + j * ldb + p, ldb, packed + p * width + j, width);
      for (int64_t p = whole; p < k; ++p) {
        for (int64_t i = j; i < j + kLanes; ++i) packed[p * width + i] = b[i * ldb + p];
      }
    } else {
      for (int64_t i = j; i < j + kLanes; ++i) {
        for (int64_t p = 0; p < k; ++p) packed[p * width + i] = i < n ? b[i * ldb + p] : T{0};
      }
    }
  }
}

template <class T>
inline T scaled(T old, T alpha, T sum, T beta) {
  return beta == T{0} ? alpha * sum : beta * old + alpha * sum;
}

template <class T>
void thin(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t ldb, T beta,
          T* c, int64_t ldc) {
  // Columns in blocks whose sums stay in the first-level cache.
  constexpr int64_t kBlock = 512;
  alignas(64) T sums[kMaxThin][kBlock];
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = n - begin < kBlock ? n - begin : kBlock;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < count; ++j) sums[i][j] = T{0};
    }
    for (int64_t p = 0; p < k; ++p) {
      const T* right = b + p * ldb + begin;
      for (int64_t i = 0; i < m; ++i) {
        const T left = a[i * a_row + p * a_column];
        for (int64_t j = 0; j < count; ++j) sums[i][j] += left * right[j];
      }
    }
    for (int64_t i = 0; i < m; ++i) {
      T* row = c + i * ldc + begin;
      for (int64_t j = 0; j < count; ++j) row[j] = scaled(row[j], alpha, sums[i][j], beta);
    }
  }
}

/// M rows of A against J rows of B: M * J dot products, each over fixed lanes and then the lanes in order.
template <class T, int M, int J>
void dots(int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  constexpr int kLanes = kLanesOf<T>;
  Vector<T> sums[M][J];
  HADAL_UNROLL
  for (int i = 0; i < M; ++i) {
    HADAL_UNROLL
    for (int j = 0; j < J; ++j) sums[i][j] = Vector<T>{};
  }
  int64_t p = 0;
  HADAL_NO_UNROLL
  for (; p + kLanes <= k; p += kLanes) {
    HADAL_UNROLL
    for (int j = 0; j < J; ++j) {
      const Vector<T> right = load(b + j * ldb + p);
      HADAL_UNROLL
      for (int i = 0; i < M; ++i) sums[i][j] += load(a + i * lda + p) * right;
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < J; ++j) {
      alignas(64) T lanes[kLanes];
      store(lanes, sums[i][j]);
      T sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
      for (int64_t q = p; q < k; ++q) sum += a[i * lda + q] * b[j * ldb + q];
      T* to = c + i * ldc + j;
      *to = scaled(*to, alpha, sum, beta);
    }
  }
}

template <class T, int M>
void thin_rows(int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) dots<T, M, 4>(k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
  for (; j < n; ++j) dots<T, M, 1>(k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
}

template <class T>
void thin_transposed(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c,
                     int64_t ldc) {
  switch (m) {
    case 1:
      return thin_rows<T, 1>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 2:
      return thin_rows<T, 2>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    case 3:
      return thin_rows<T, 3>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    default:
      return thin_rows<T, kMaxThin>(n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
}

template <class T, int... H>
constexpr GemmMicro<T> make_table(std::integer_sequence<int, H...>) {
  return {kRows,
          kPanel<T>,
          {nullptr, strip<T, H + 1, false>...},
          {nullptr, strip<T, H + 1, true>...},
          {nullptr, pack_a<T, H + 1>...},
          pack_b<T>,
          pack_b_transposed<T>,
          thin<T>,
          thin_transposed<T>};
}

template <class T>
constexpr GemmMicro<T> kTable = make_table<T>(std::make_integer_sequence<int, kRows>{});

}  // namespace

const GemmMicro<float>& gemm_micro_f32() { return kTable<float>; }
const GemmMicro<double>& gemm_micro_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
