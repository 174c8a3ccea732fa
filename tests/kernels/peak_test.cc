// Guards: measured peaks are sane (f64 near half of f32), and remembered.
#include "kernels/peak.h"

#include <gtest/gtest.h>

namespace hadal::kernels {
namespace {

TEST(Peak, IsSane) {
  const double f32 = peak_flops(DType::kF32, 1), f64 = peak_flops(DType::kF64, 1);
  EXPECT_GT(f64, 1e8);
  EXPECT_GT(f32, 1.3 * f64);
  EXPECT_LT(f32, 3.0 * f64);
  EXPECT_EQ(peak_flops(DType::kF32, 1), f32);
  EXPECT_GT(copy_bandwidth(1), 1e8);
}

}  // namespace
}  // namespace hadal::kernels
