#include "kernels/cpu/simd/attention_tiles.h"

#include "kernels/cpu/simd/exp2.h"
#include "kernels/cpu/simd/larger.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/transpose_block.h"
#include "kernels/cpu/simd/vector.h"

HADAL_SIMD_TABLE(AttentionTiles, attention_tiles)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

// A tile is kTileRows x at most 3 vectors of sums: 24 of 32 registers, or 12 of 16.
#ifdef HADAL_SIMD_avx512
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kStrip = static_cast<int>(kStripRows);

template <class T>
void pack_rows(std::int64_t rows, std::int64_t width, const T* from, std::int64_t stride, T factor, T* to, std::int64_t ld,
               std::int64_t padded) {
  constexpr int kLanes = kLanesOf<T>;
  for (std::int64_t row = 0; row < rows; ++row, from += stride, to += ld) {
    std::int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) store(to + i, load(from + i) * factor);
    for (; i < width; ++i) to[i] = from[i] * factor;
    for (; i < padded; ++i) to[i] = T{0};
  }
}

template <class T>
void pack_columns(std::int64_t rows, std::int64_t width, const T* from, std::int64_t stride, T* to, std::int64_t ld) {
  constexpr int kLanes = kLanesOf<T>;
  const std::int64_t whole_rows = rows / kLanes * kLanes, whole_width = width / kLanes * kLanes;
  for (std::int64_t row = 0; row < whole_rows; row += kLanes) {
    for (std::int64_t i = 0; i < whole_width; i += kLanes)
      transpose_block(from + row * stride + i, stride, to + i * ld + row, ld);
    for (std::int64_t i = whole_width; i < width; ++i) {
      for (std::int64_t r = row; r < row + kLanes; ++r) to[i * ld + r] = from[r * stride + i];
    }
  }
  if (whole_rows == rows) return;
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t row = whole_rows; row < whole_rows + kLanes; ++row) {
      to[i * ld + row] = row < rows ? from[row * stride + i] : T{0};
    }
  }
}

template <class T>
void gather(std::int64_t rows, const std::int32_t* index, std::int64_t width, const T* from, T* to) {
  for (std::int64_t row = 0; row < rows; ++row, to += width) {
    const T* const source = from + index[row] * width;
    for (std::int64_t i = 0; i < width; i += kLanesOf<T>) store(to + i, load(source + i));
  }
}

template <class T, bool kAdd>
void scatter(std::int64_t rows, const std::int32_t* index, std::int64_t width, const T* from, T* to) {
  for (std::int64_t row = 0; row < rows; ++row, from += width) {
    T* const target = to + index[row] * width;
    for (std::int64_t i = 0; i < width; i += kLanesOf<T>)
      store(target + i, kAdd ? load(target + i) + load(from + i) : load(from + i));
  }
}

// Neighbouring lanes of x, then of y, combined: [x0 x1, x2 x3, .., y0 y1, ..].
template <class T, class Combine, int... I>
inline Vector<T> fold(Vector<T> x, Vector<T> y, const Combine& combine, std::integer_sequence<int, I...>) {
  return combine(Vector<T>(__builtin_shufflevector(x, y, (2 * I)...)), Vector<T>(__builtin_shufflevector(x, y, (2 * I + 1)...)));
}

// The lanes of each of kStripRows vectors combined, as a tree in a fixed order: result[row] for all rows at once.
template <class T, class Combine>
inline void fold_rows(Vector<T> (&x)[kStrip], const Combine& combine, T* result) {
  constexpr int kLanes = kLanesOf<T>;
  constexpr std::make_integer_sequence<int, kLanes> kSequence{};
  int count = kStrip;
  HADAL_UNROLL
  for (int left = kLanes; left > 1; left /= 2) {
    if (count == 1) {
      x[0] = fold<T>(x[0], x[0], combine, kSequence);
    } else {
      count /= 2;
      HADAL_UNROLL
      for (int i = 0; i < count; ++i) x[i] = fold<T>(x[2 * i], x[2 * i + 1], combine, kSequence);
    }
  }
  alignas(64) T rows[kStrip > kLanes ? kStrip : kLanes];
  HADAL_UNROLL
  for (int i = 0; i < count; ++i) store(rows + i * kLanes, x[i]);
  for (int row = 0; row < kStrip; ++row) result[row] = rows[row];
}

template <class T>
void row_dots(std::int64_t rows, std::int64_t width, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* result) {
  constexpr int kLanes = kLanesOf<T>;
  const std::int64_t whole = width / kLanes * kLanes;
  Vector<T> sum[kStrip];
  for (int row = 0; row < kStrip; ++row) {
    sum[row] = Vector<T>{};
    if (row >= rows) continue;
    for (std::int64_t i = 0; i < whole; i += kLanes) sum[row] += load(a + row * lda + i) * load(b + row * ldb + i);
  }
  T dots[kStrip];
  fold_rows<T>(
      sum, [](Vector<T> x, Vector<T> y) { return x + y; }, dots);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = whole; i < width; ++i) dots[row] += a[row * lda + i] * b[row * ldb + i];
    result[row] = dots[row];
  }
}

template <class T>
void scores(std::int64_t rows, std::int64_t keys, std::int64_t width, const T* q, std::int64_t ldq, const T* k, std::int64_t ldk,
            T* s, std::int64_t lds, bool accumulate) {
  constexpr int kLanes = kLanesOf<T>;
  const std::int64_t whole = width / kLanes * kLanes;
  for (std::int64_t j = 0; j < keys; j += kStrip, k += kStrip * ldk) {
    const int count = keys - j < kStrip ? static_cast<int>(keys - j) : kStrip;
    const T* key[kStrip];  // the last key stands in for those that are missing
    for (int c = 0; c < kStrip; ++c) key[c] = k + (c < count ? c : count - 1) * ldk;
    for (std::int64_t row = 0; row < rows; ++row) {
      const T* const query = q + row * ldq;
      Vector<T> sum[kStrip] = {};
      for (std::int64_t i = 0; i < whole; i += kLanes) {
        const Vector<T> left = load(query + i);
        HADAL_UNROLL
        for (int c = 0; c < kStrip; ++c) sum[c] += left * load(key[c] + i);
      }
      T dots[kStrip];
      fold_rows<T>(
          sum, [](Vector<T> x, Vector<T> y) { return x + y; }, dots);
      for (int c = 0; c < count; ++c) {
        for (std::int64_t i = whole; i < width; ++i) dots[c] += query[i] * key[c][i];
        T* const to = s + row * lds + j + c;
        *to = accumulate ? *to + dots[c] : dots[c];
      }
    }
  }
}

// One register tile of kRows x kVectors accumulators. A is row-major, or stored [k, m].
template <class T, bool kTransposed, int kRows, int kVectors>
inline void tile(std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
                 bool accumulate) {
  constexpr int kL = kLanesOf<T>;
  Vector<T> sum[kRows][kVectors];
  HADAL_UNROLL
  for (int r = 0; r < kRows; ++r) {
    HADAL_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[r][v] = accumulate ? load(c + r * ldc + v * kL) : Vector<T>{};
  }
  for (std::int64_t i = 0; i < k; ++i) {
    Vector<T> right[kVectors];
    HADAL_UNROLL
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * kL);
    HADAL_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vector<T> left = broadcast(kTransposed ? a[r] : a[r * lda]);
      HADAL_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[r][v] += left * right[v];
    }
    a += kTransposed ? lda : 1;
    b += ldb;
  }
  HADAL_UNROLL
  for (int r = 0; r < kRows; ++r) {
    HADAL_UNROLL
    for (int v = 0; v < kVectors; ++v) store(c + r * ldc + v * kL, sum[r][v]);
  }
}

template <class T, bool kTransposed, int kRows>
inline void row_strip(std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c,
                      std::int64_t ldc, bool accumulate) {
  constexpr int kL = kLanesOf<T>;
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
  constexpr int kLanes = kLanesOf<T>;
  constexpr T kNone = -static_cast<T>(__builtin_inf());
  Vector<T> lanes[kStrip];
  for (int row = 0; row < kStrip; ++row) {
    lanes[row] = broadcast(kNone);
    if (row >= rows) continue;
    const T* const from = s + row * lds;
    // A NaN may get lost here: it shows in its own probability.
    for (std::int64_t i = 0; i < n; i += kLanes) lanes[row] = larger(lanes[row], load(from + i));
  }
  T most[kStrip];
  fold_rows<T>(
      lanes, [](Vector<T> x, Vector<T> y) { return larger(x, y); }, most);
  alignas(64) T shrink[kStrip > kLanes ? kStrip : kLanes] = {};
  T shift[kStrip];  // what is subtracted: 0 where there is no maximum yet, so that -inf stays -inf
  bool moved = false;
  for (int row = 0; row < kStrip; ++row) {
    most[row] = most[row] <= row_max[row] ? row_max[row] : most[row];
    shift[row] = most[row] == kNone ? T{0} : most[row];
    moved |= row < rows && most[row] != row_max[row];
    shrink[row] = row_max[row] - shift[row];
  }
  for (int row = 0; row < kStrip; row += kLanes) store(shrink + row, exp2_of(load(shrink + row)));
  for (int row = 0; row < kStrip; ++row) {
    Vector<T> sum{};
    if (row < rows) {
      T* const to = s + row * lds;
      for (std::int64_t i = 0; i < n; i += kLanes) {
        const Vector<T> p = exp2_of(load(to + i) - shift[row]);
        store(to + i, p);
        sum += p;
      }
    }
    lanes[row] = sum;
  }
  T sums[kStrip];
  fold_rows<T>(
      lanes, [](Vector<T> x, Vector<T> y) { return x + y; }, sums);
  for (int row = 0; row < rows; ++row) {
    row_sum[row] = row_sum[row] * shrink[row] + sums[row];
    row_max[row] = most[row];
  }
  if (!moved) return;
  for (int row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < width; i += kLanes) store(o + row * ldo + i, load(o + row * ldo + i) * shrink[row]);
  }
}

template <class T>
void softmax_gradient(std::int64_t rows, std::int64_t n, T* s, T* dp, std::int64_t ld, const T* lse, const T* delta) {
  constexpr int kL = kLanesOf<T>;
  for (std::int64_t row = 0; row < rows; ++row, s += ld, dp += ld) {
    const Vector<T> shift = broadcast(lse[row]), mean = broadcast(delta[row]);
    for (std::int64_t i = 0; i < n; i += kL) {
      const Vector<T> p = exp2_of(load(s + i) - shift);
      store(s + i, p);
      store(dp + i, p * (load(dp + i) - mean));
    }
  }
}

template <class T>
void probabilities(std::int64_t n, T* s, T lse) {
  for (std::int64_t i = 0; i < n; i += kLanesOf<T>) store(s + i, exp2_of(load(s + i) - lse));
}

}  // namespace

template <class T>
static constexpr AttentionTiles<T> kTable{.lanes = kLanesOf<T>,
                                   .pack_rows = pack_rows<T>,
                                   .pack_columns = pack_columns<T>,
                                   .gather = gather<T>,
                                   .scatter = scatter<T, false>,
                                   .scatter_add = scatter<T, true>,
                                   .row_dots = row_dots<T>,
                                   .scores = scores<T>,
                                   .gemm = gemm<T, false>,
                                   .gemm_ta = gemm<T, true>,
                                   .softmax = softmax<T>,
                                   .softmax_gradient = softmax_gradient<T>,
                                   .probabilities = probabilities<T>};

const AttentionTiles<float>& attention_tiles_f32() { return kTable<float>; }
const AttentionTiles<double>& attention_tiles_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
