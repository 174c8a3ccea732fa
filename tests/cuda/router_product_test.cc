// Guards: the router's products with bf16 activations and an f32 weight on CUDA against the CPU in f64, to the accuracy of f32 and not of
// bf16, but for d_x, which is bf16 itself; in f32 too; odd sizes, no tokens, a weight gradient that is overwritten.
#include "kernels/router_product.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

void check(std::int64_t tokens, std::int64_t width, std::int64_t experts, bool add, DType dtype) {
  SCOPED_TRACE(testing::Message() << name_of(dtype) << " " << tokens << " tokens of " << width << ", " << experts << " experts, add " << add);
  const DType sums = accumulation_dtype(dtype);
  Twin x = Twin::normal({tokens, width}, dtype, 1), w = Twin::normal({experts, width}, sums, 2, 1 / std::sqrt(static_cast<double>(width)));
  Twin d_logits = Twin::normal({tokens, experts}, sums, 3), logits = Twin::output({tokens, experts}, sums);
  Twin d_x = Twin::normal({tokens, width}, dtype, 4), d_w = add ? Twin::normal({experts, width}, sums, 5) : Twin::output({experts, width}, sums);
  run_on_both({&x, &w, &d_logits}, {&logits, &d_x, &d_w}, [&](Stream& stream, Side side) {
    run(stream, kernels::RouterLogits{.x = side(x), .w = side(w), .logits = side(logits)});
    run(stream, kernels::RouterLogitsBackward{
                    .x = side(x), .w = side(w), .d_logits = side(d_logits), .d_x = side(d_x), .d_w = side(d_w), .add = add});
  });
  EXPECT_TRUE(logits.agrees(tolerance_of(DType::kF32, width)));
  const double added = dtype == DType::kBf16 ? tolerance_of(dtype) : 0;  // the share is rounded, then the sum (kernels/gemm.h)
  EXPECT_TRUE(d_x.agrees(tolerance_of(dtype, experts) + added));
  EXPECT_TRUE(d_w.agrees(std::ldexp(1.0, -17) + tolerance_of(DType::kF32, tokens)));
}

TEST(CudaRouterProduct, AgreesWithTheCpuToTheAccuracyOfF32) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    check(300, 256, 64, true, dtype);
    check(4096, 512, 160, false, dtype);
    check(37, 41, 5, true, dtype);
    check(1, 8, 3, false, dtype);
    check(0, 16, 8, false, dtype);
  }
}

}  // namespace
}  // namespace hadal::test
