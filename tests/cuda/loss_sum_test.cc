// Guards: the weighted sum of token losses on CUDA, with and without weights: no tokens, fewer than threads, lengths that threads do
// not share evenly, a sum that f32 would round.
#include "kernels/loss_sum.h"

#include <gtest/gtest.h>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

class CudaLossSum : public testing::TestWithParam<std::int64_t> {};

TEST_P(CudaLossSum, AgreesWithTheCpu) {
  const std::int64_t tokens = GetParam();
  Twin token_loss = Twin::normal({tokens}, DType::kF32, 1, 3.0), weight = Twin::normal({tokens}, DType::kF32, 2, 1e-3);
  for (const bool weighted : {true, false}) {
    Twin loss = Twin::output({1}, DType::kF64);
    run_on_both({&token_loss, &weight}, {&loss}, [&](Stream& stream, Side side) {
      run(stream, kernels::LossSum{.token_loss = side(token_loss), .loss_weight = weighted ? side(weight) : View{}, .loss = side(loss)});
    });
    EXPECT_TRUE(loss.agrees(1e-11));  // of f64 sums in another order that cancel in part
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaLossSum, testing::Values(0, 1, 7, 1023, 1024, 1025, 4096, 100003));

}  // namespace
}  // namespace hadal::test
