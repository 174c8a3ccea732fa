#include "kernels/cpu/simd/attention_tiles.h"

#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector_type.h"

HADAL_SIMD_TABLE(AttentionTiles, attention_tiles)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

template <class T>
void pack_rows(std::int64_t rows, std::int64_t width, const T* from, std::int64_t stride, T factor, T* to, std::int64_t ld) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < width; ++i) to[row * ld + i] = factor * from[row * stride + i];
  }
}

template <class T>
void pack_columns(std::int64_t rows, std::int64_t width, const T* from, std::int64_t stride, T* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t row = 0; row < rows; ++row) to[i * ld + row] = from[row * stride + i];
  }
}

// One register tile of kRows x kVectors accumulators. A is row-major, or stored [k, m].
template <class T, bool kTransposed, int kRows, int kVectors>
inline void tile(std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
                 bool accumulate) {
  constexpr int kL = kLanes<T>;
  Vector<T> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = accumulate ? load(c + r * ldc + v * kL) : Vector<T>{};
  }
  for (std::int64_t i = 0; i < k; ++i) {
    Vector<T> right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * kL);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector<T> left = broadcast(kTransposed ? a[r] : a[r * lda]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] += left * right[v];
    }
    a += kTransposed ? lda : 1;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store<T>(c + r * ldc + v * kL, sum[r][v]);
  }
}

template <class T, bool kTransposed, int kRows>
inline void row_strip(std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c,
                      std::int64_t ldc, bool accumulate) {
  constexpr int kL = kLanes<T>;
  std::int64_t vectors = n / kL;
  while (vectors > 0) {
    const int take = vectors >= 5 || vectors == 3 ? 3 : (vectors >= 2 ? 2 : 1);
    if (take == 3) {
      tile<T, kTransposed, kRows, 3>(k, a, lda, b, ldb, c, ldc, accumulate);
    } else if (take == 2) {
      tile<T, kTransposed, kRows, 2>(k, a, lda, b, ldb, c, ldc, accumulate);
    } else {
      tile<T, kTransposed, kRows, 1>(k, a, lda, b, ldb, c, ldc, accumulate);
    }
    vectors -= take;
    b += take * kL;
    c += take * kL;
  }
}

template <class T, bool kTransposed>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c,
          std::int64_t ldc, bool accumulate) {
  const auto advance = [&](std::int64_t rows) {
    m -= rows;
    a += kTransposed ? rows : rows * lda;
    c += rows * ldc;
  };
  while (m >= kTileRows) {
    row_strip<T, kTransposed, kTileRows>(n, k, a, lda, b, ldb, c, ldc, accumulate);
    advance(kTileRows);
  }
  if constexpr (kTileRows > 4) {
    if (m >= 4) {
      row_strip<T, kTransposed, 4>(n, k, a, lda, b, ldb, c, ldc, accumulate);
      advance(4);
    }
  }
  if (m >= 2) {
    row_strip<T, kTransposed, 2>(n, k, a, lda, b, ldb, c, ldc, accumulate);
    advance(2);
  }
  if (m == 1) row_strip<T, kTransposed, 1>(n, k, a, lda, b, ldb, c, ldc, accumulate);
}

template <class T>
void softmax(std::int64_t rows, std::int64_t n, T* s, std::int64_t lds, T* row_max, T* row_sum, T* o, std::int64_t ldo,
             std::int64_t width) {
  constexpr int kL = kLanes<T>;
  constexpr T kNone = -static_cast<T>(__builtin_inf());
  for (std::int64_t row = 0; row < rows; ++row, s += lds, o += ldo) {
    Vector<T> most = broadcast(row_max[row]);
    for (std::int64_t i = 0; i < n; i += kL) {
      const Vector<T> x = load(s + i);
      most = x <= most ? most : x;  // a NaN wins, so that it is seen
    }
    const T new_max = max_of<T>(most);
    if (new_max == kNone) {
      for (std::int64_t i = 0; i < n; i += kL) store<T>(s + i, Vector<T>{});
      continue;
    }
    Vector<T> sum{};
    for (std::int64_t i = 0; i < n; i += kL) {
      const Vector<T> p = exp2_of(load(s + i) - new_max);
      store<T>(s + i, p);
      sum += p;
    }
    if (new_max == row_max[row]) {
      row_sum[row] += sum_of<T>(sum);
      continue;
    }
    const Vector<T> shrink = exp2_of(broadcast(row_max[row] - new_max));
    row_sum[row] = row_sum[row] * shrink[0] + sum_of<T>(sum);
    row_max[row] = new_max;
    for (std::int64_t i = 0; i < width; i += kL) store<T>(o + i, load(o + i) * shrink);
  }
}

template <class T>
void softmax_gradient(std::int64_t rows, std::int64_t n, T* s, T* dp, std::int64_t ld, const T* lse, const T* delta) {
  constexpr int kL = kLanes<T>;
  for (std::int64_t row = 0; row < rows; ++row, s += ld, dp += ld) {
    const Vector<T> shift = broadcast(lse[row]), mean = broadcast(delta[row]);
    for (std::int64_t i = 0; i < n; i += kL) {
      const Vector<T> p = exp2_of(load(s + i) - shift);
      store<T>(s + i, p);
      store<T>(dp + i, p * (load(dp + i) - mean));
    }
  }
}

template <class T>
void probabilities(std::int64_t n, T* s, T lse) {
  for (std::int64_t i = 0; i < n; i += kLanes<T>) store<T>(s + i, exp2_of(load(s + i) - lse));
}

}  // namespace

template <class T>
constexpr AttentionTiles<T> kTable{kLanes<T>,     pack_rows<T>, pack_columns<T>,     gemm<T, false>,
                                   gemm<T, true>, softmax<T>,   softmax_gradient<T>, probabilities<T>};

const AttentionTiles<float>& attention_tiles_f32() { return kTable<float>; }
const AttentionTiles<double>& attention_tiles_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
