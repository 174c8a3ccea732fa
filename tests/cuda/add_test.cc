// Guards: sums of two tensors on CUDA, of any size, from any address, over one of the operands.
#include <gtest/gtest.h>

#include "kernels/rows.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

class CudaAdd : public testing::TestWithParam<std::tuple<std::int64_t, DType>> {};

TEST_P(CudaAdd, AgreesWithTheCpu) {
  const auto [n, dtype] = GetParam();
  Twin a = Twin::normal({n}, dtype, 1), b = Twin::normal({n}, dtype, 2), y = Twin::output({n}, dtype);
  run_on_both({&a, &b}, {&y},
              [&](Stream& stream, Side side) { run(stream, kernels::Add{.a = side(a), .b = side(b), .y = side(y)}); });
  EXPECT_TRUE(y.agrees(tolerance_of(dtype)));
  if (n > 1) {
    run_on_both({&b}, {&a}, [&, n = n](Stream& stream, Side side) {
      run(stream, kernels::Add{.a = side(a).rows(1, n), .b = side(b).rows(0, n - 1), .y = side(a).rows(1, n)});
    });
    EXPECT_TRUE(a.agrees(tolerance_of(dtype)));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaAdd,
                         testing::Combine(testing::Values(0, 1, 7, 8, 4096, 4099, 300001),
                                          testing::Values(DType::kF32, DType::kBf16)));

}  // namespace
}  // namespace hadal::test
