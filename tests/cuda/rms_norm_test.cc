// Guards: RMSNorm forward and backward on CUDA: every way a row can be held (a warp, 128 to 512 threads, element by element),
// strides, the residual, the accumulated gain gradient over many chunks.
#include "kernels/rms_norm.h"

#include <gtest/gtest.h>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

struct Case {
  std::int64_t rows, width;
  std::int64_t extra_x = 0, extra_d_x = 0;  ///< columns beside the row in x, in d_x
  bool residual = false;
  double eps = 1e-5;
};

/// What lies beside the rows must not be touched. A width of 1 has a gradient by eps alone.
class CudaRmsNorm : public testing::TestWithParam<std::tuple<Case, DType>> {};

TEST_P(CudaRmsNorm, AgreesWithTheCpu) {
  const auto [c, dtype] = GetParam();
  const std::int64_t x_stride = c.width + c.extra_x, d_x_stride = c.width + c.extra_d_x;
  Twin x = Twin::normal({c.rows, x_stride}, dtype, 1, 2.0), gain = Twin::normal({c.width}, DType::kF32, 2);
  Twin y = Twin::output({c.rows, c.width}, dtype), rho = Twin::output({c.rows}, DType::kF32);
  run_on_both({&x, &gain}, {&y, &rho}, [&](Stream& stream, Side side) {
    run(stream,
        kernels::RmsNormForward{
            .x = side(x), .x_stride = x_stride, .gain = side(gain), .eps = c.eps, .y = side(y), .inverse_rms = side(rho)});
  });
  EXPECT_TRUE(y.agrees(tolerance_of(dtype, c.width)));
  EXPECT_TRUE(rho.agrees(tolerance_of(DType::kF32, c.width)));

  Twin d_y = Twin::normal({c.rows, c.width}, dtype, 3), rest = Twin::normal({c.rows, c.width}, dtype, 4);
  Twin d_x = Twin::normal({c.rows, d_x_stride}, dtype, 5), d_gain = Twin::normal({c.width}, DType::kF32, 6);
  // Backward reads what its own forward has left: the device's statistics are compared above.
  run_on_both({&x, &gain, &rho, &d_y, &rest}, {&d_x, &d_gain}, [&](Stream& stream, Side side) {
    run(stream, kernels::RmsNormBackward{.x = side(x),
                                         .x_stride = x_stride,
                                         .gain = side(gain),
                                         .inverse_rms = side(rho),
                                         .d_y = side(d_y),
                                         .d_residual = c.residual ? side(rest) : View{},
                                         .d_x = side(d_x),
                                         .d_x_stride = d_x_stride,
                                         .d_gain = side(d_gain)});
  });
  EXPECT_TRUE(d_x.agrees(tolerance_of(dtype, c.width)));
  EXPECT_TRUE(d_gain.agrees(tolerance_of(DType::kF32, c.rows)));
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, CudaRmsNorm,
    testing::Combine(testing::Values(Case{1, 1, 0, 0, false, 0.5}, Case{3, 7, 0, 0, true}, Case{5, 19, 3, 2},
                                     Case{33, 128, 0, 0, true}, Case{1, 8}, Case{70, 512, 64, 64}, Case{70, 512, 64, 63},
                                     Case{9, 1016, 8, 0, true}, Case{4001, 64}, Case{17, 1536, 0, 0, true}, Case{1500, 2048},
                                     Case{129, 2560, 0, 8}, Case{400, 7168, 0, 0, true}, Case{12, 7169, 0, 0, true},
                                     Case{300, 16384}, Case{3, 16384, 0, 0, true}, Case{2, 40000}, Case{0, 64}),
                     testing::Values(DType::kF32, DType::kBf16)));

}  // namespace
}  // namespace hadal::test
