// Guards: relative error of the vectorised exponential over its whole range, and its behaviour at the ends.
#include "kernels/cpu/simd/exp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace hadal::kernels::simd::portable {
namespace {

template <class T>
double worst_error(double low, double high, int steps) {
  double worst = 0;
  for (int i = 0; i <= steps; ++i) {
    const T x = static_cast<T>(low + (high - low) * i / steps);
    const long double wanted = std::exp(static_cast<long double>(x));
    worst = std::max(worst, static_cast<double>(std::fabs(static_cast<long double>(exp_approx(x)) - wanted) / wanted));
  }
  return worst;
}

TEST(Exp, RelativeError) {
  EXPECT_LE(worst_error<float>(-87.3, 88.7, 300000), 1.5e-7);
  EXPECT_LE(worst_error<float>(-1, 1, 100000), 1.5e-7);
  EXPECT_LE(worst_error<double>(-708.3, 709.7, 300000), 1e-15);
  EXPECT_LE(worst_error<double>(-1, 1, 100000), 1e-15);
}

template <class T>
void check_ends() {
  const T infinity = std::numeric_limits<T>::infinity();
  EXPECT_EQ(exp_approx(T{0}), T{1});
  EXPECT_EQ(exp_approx(-infinity), T{0});
  EXPECT_EQ(exp_approx(infinity), infinity);
  EXPECT_EQ(exp_approx(T{1000}), infinity);
  EXPECT_EQ(exp_approx(T{-1000}), T{0});
  EXPECT_TRUE(std::isnan(exp_approx(std::numeric_limits<T>::quiet_NaN())));
  EXPECT_EQ(exp_approx(std::numeric_limits<T>::lowest()), T{0});
}

TEST(Exp, Ends) {
  check_ends<float>();
  check_ends<double>();
}

}  // namespace
}  // namespace hadal::kernels::simd::portable
