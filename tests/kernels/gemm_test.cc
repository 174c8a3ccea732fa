// Guards: the matrix product against long double sums, for every form, odd sizes, leading dimensions, alpha and beta; nothing
// written outside c; the same bits twice and for any thread count.
#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "core/parallel_for.h"
#include "core/rng.h"
#include "tests/support/blas.h"

namespace hadal::kernels {
namespace {

struct Case {
  std::int64_t m, n, k;
  bool ta, tb;
  double alpha, beta;
  std::int64_t pad;  // extra elements per row
};

template <class T>
std::vector<T> random_values(std::size_t count, std::uint64_t seed) {
  const Random random(seed, RandomPurpose::kInit, seed);
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<T>(random.normal(i));
  return values;
}

constexpr double kGuard = -12345.0;

template <class T>
ConstView view(const std::vector<T>& values, std::int64_t offset, std::int64_t rows, std::int64_t columns) {
  return {values.data() + offset, kDTypeOf<T>, Shape({rows, columns}), kCpu};
}

/// c of the case inside a guarded buffer.
template <class T>
std::vector<T> product(const Case& t, const std::vector<T>& a, const std::vector<T>& b, const std::vector<T>& c0) {
  const std::int64_t a_rows = t.ta ? t.k : t.m, a_columns = t.ta ? t.m : t.k;
  const std::int64_t b_rows = t.tb ? t.n : t.k, b_columns = t.tb ? t.k : t.n;
  std::vector<T> c = c0;
  Stream stream;
  run(stream, Gemm{.a = view(a, 0, a_rows, a_columns),
                   .b = view(b, 0, b_rows, b_columns),
                   .c = {c.data() + 3, kDTypeOf<T>, Shape({t.m, t.n}), kCpu},
                   .transpose_a = t.ta,
                   .transpose_b = t.tb,
                   .alpha = t.alpha,
                   .beta = t.beta,
                   .lda = t.pad == 0 ? 0 : a_columns + t.pad,
                   .ldb = t.pad == 0 ? 0 : b_columns + t.pad,
                   .ldc = t.n + t.pad});
  return c;
}

template <class T>
void check(const Case& t) {
  SCOPED_TRACE(testing::Message() << sizeof(T) * 8 << " bit, m " << t.m << " n " << t.n << " k " << t.k << " ta " << t.ta
                                  << " tb " << t.tb << " alpha " << t.alpha << " beta " << t.beta << " pad " << t.pad);
  const std::int64_t a_rows = t.ta ? t.k : t.m, lda = (t.ta ? t.m : t.k) + t.pad;
  const std::int64_t b_rows = t.tb ? t.n : t.k, ldb = (t.tb ? t.k : t.n) + t.pad, ldc = t.n + t.pad;
  const auto a = random_values<T>(static_cast<std::size_t>(a_rows * lda), 1);
  const auto b = random_values<T>(static_cast<std::size_t>(b_rows * ldb), 2);
  auto c0 = random_values<T>(static_cast<std::size_t>(t.m * ldc + 6), 3);
  for (std::size_t i = 0; i < c0.size(); ++i) {
    const std::int64_t at = static_cast<std::int64_t>(i) - 3;
    if (at < 0 || at >= t.m * ldc || at % ldc >= t.n) {
      c0[i] = static_cast<T>(kGuard);
    } else if (t.beta == 0) {
      c0[i] = std::numeric_limits<T>::quiet_NaN();
    }
  }
  const auto c = product(t, a, b, c0);
  const double unit = std::numeric_limits<T>::epsilon();
  int bad = 0;
  for (std::size_t i = 0; i < c.size(); ++i) {
    const std::int64_t at = static_cast<std::int64_t>(i) - 3;
    if (at < 0 || at >= t.m * ldc || at % ldc >= t.n) {
      bad += c[i] != static_cast<T>(kGuard);
      continue;
    }
    const std::int64_t row = at / ldc, column = at % ldc;
    long double sum = 0, size = 0;
    for (std::int64_t p = 0; p < t.k; ++p) {
      const long double term = static_cast<long double>(a[static_cast<std::size_t>(t.ta ? p * lda + row : row * lda + p)]) *
                               b[static_cast<std::size_t>(t.tb ? column * ldb + p : p * ldb + column)];
      sum += term;
      size += std::fabs(term);
    }
    const long double old = t.beta == 0 ? 0.0L : static_cast<long double>(t.beta) * c0[i];
    const long double wanted = t.alpha * sum + old;
    const long double allowed =
        unit * (2 * std::sqrt(static_cast<long double>(t.k)) + 4) * (std::fabs(t.alpha) * size + std::fabs(old));
    bad += !(std::fabs(static_cast<long double>(c[i]) - wanted) <= allowed);
  }
  EXPECT_EQ(bad, 0);

  const int threads = num_threads();
  for (int count = 1; count <= 3; ++count) {
    set_num_threads(count);
    const auto again = product(t, a, b, c0);
    EXPECT_EQ(std::memcmp(again.data(), c.data(), c.size() * sizeof(T)), 0) << count << " threads";
  }
  set_num_threads(threads);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::int64_t sizes[][3] = {{1, 1, 1},     {1, 7, 3},      {2, 33, 65},    {3, 64, 17},    {4, 100, 64},
                                   {5, 5, 5},     {14, 32, 16},   {15, 33, 31},   {29, 48, 40},   {64, 16, 48},
                                   {63, 96, 127}, {128, 80, 1},   {61, 130, 700}, {200, 300, 70}, {33, 17, 1100},
                                   {257, 65, 33}, {113, 544, 96}, {7, 0, 3},      {0, 5, 3},      {6, 9, 0}};
  int turn = 0;
  for (const auto& size : sizes) {
    for (const auto& [ta, tb] : {std::pair{false, false}, {false, true}, {true, false}, {true, true}}) {
      const double alphas[] = {1, -0.5, 1, 2}, betas[] = {0, 1, 0.25, 0};
      all.push_back({size[0], size[1], size[2], ta, tb, alphas[turn % 4], betas[turn % 4], turn % 3 == 0 ? 0 : turn % 3 * 5 - 3});
      ++turn;
    }
  }
  return all;
}

TEST(Gemm, MatchesLongDoubleF32) {
  for (const Case& t : cases()) check<float>(t);
}

TEST(Gemm, MatchesLongDoubleF64) {
  for (const Case& t : cases()) check<double>(t);
}

/// Largest distance to OpenBLAS's product in units of epsilon * k, about what two orders of summing k unit normal terms may
/// differ by.
template <class T>
double distance_to_blas(const Case& t) {
  const std::int64_t lda = t.ta ? t.m : t.k, ldb = t.tb ? t.k : t.n;
  const auto a = random_values<T>(static_cast<std::size_t>(t.m * t.k), 1),
             b = random_values<T>(static_cast<std::size_t>(t.k * t.n), 2);
  auto wanted = random_values<T>(static_cast<std::size_t>(t.m * t.n), 3);
  std::vector<T> c(wanted.size() + 6);
  std::copy(wanted.begin(), wanted.end(), c.begin() + 3);
  c = product(t, a, b, c);
  test::Blas::instance().gemm(t.ta, t.tb, t.m, t.n, t.k, a.data(), lda, b.data(), ldb, static_cast<T>(t.beta), wanted.data(),
                              t.n);
  double worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    worst = std::max(worst, std::fabs(static_cast<double>(c[i + 3]) - static_cast<double>(wanted[i])));
  return worst / (static_cast<double>(std::numeric_limits<T>::epsilon()) * static_cast<double>(t.k));
}

// Larger shapes than long double sums allow: several blocks of every dim, tails in each.
TEST(Gemm, AgreesWithOpenBlas) {
  if (!test::Blas::instance().found()) GTEST_SKIP() << "libopenblas.so.0 is not here: no cross-check";
  test::Blas::instance().set_threads(1);  // ThreadSanitizer does not see how its own threads meet
  for (const auto& [ta, tb] : {std::pair{false, false}, {false, true}, {true, false}}) {
    EXPECT_LE(distance_to_blas<float>({261, 523, 1203, ta, tb, 1, 1, 0}), 2);
    EXPECT_LE(distance_to_blas<float>({3, 1500, 2050, ta, tb, 1, 0, 0}), 2);
    EXPECT_LE(distance_to_blas<double>({260, 333, 1100, ta, tb, 1, 0, 0}), 2);
  }
}

TEST(Gemm, RefusesShapesThatDoNotMatch) {
  Tensor a = Tensor::zeros({3, 4}, DType::kF32), b = Tensor::zeros({5, 6}, DType::kF32), c = Tensor::zeros({3, 6}, DType::kF32);
  Stream stream;
  EXPECT_THROW(run(stream, Gemm{.a = a, .b = b, .c = c}), ContractError);
  Tensor wide = Tensor::zeros({4, 6}, DType::kF64);
  EXPECT_THROW(run(stream, Gemm{.a = a, .b = wide, .c = c}), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
