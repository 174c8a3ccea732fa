// Guards: RoPE on CUDA: packed heads that lie inside wider rows, aligned and not, in place, turned back, added to what is there.
#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

struct Case {
  std::int64_t batch, sequence, heads, total, offset, width;  ///< each head is columns [offset, offset + width) of `total`
  std::int64_t start = 0, stride = 1;
  bool transpose = false;
};

Twin table(std::int64_t positions, std::int64_t pairs, bool sine) {
  Tensor host = Tensor::empty({positions, pairs}, DType::kF64);
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      const double angle = static_cast<double>(p) * std::pow(1e4, -static_cast<double>(i) / static_cast<double>(pairs));
      host.as<double>()[p * pairs + i] = sine ? std::sin(angle) : std::cos(angle);
    }
  }
  return {std::move(host), DType::kF32};
}

class CudaRope : public testing::TestWithParam<std::tuple<Case, DType>> {
 protected:
  /// y = rope(x), y += rope(x), x = rope(x): columns outside the heads keep their values.
  void check(bool accumulate, bool in_place) {
    const auto [c, dtype] = GetParam();
    const std::int64_t positions = c.start + std::max<std::int64_t>(c.sequence - 1, 0) * c.stride + 1;
    Twin cosines = table(positions, c.width / 2, false), sines = table(positions, c.width / 2, true);
    Twin x = Twin::normal({c.batch * c.sequence, c.heads * c.total}, dtype, 1), y = Twin::normal(x.shape(), dtype, 2);
    const auto call = [&, c = c](Stream& stream, Side side) {
      const auto part = [&](Twin& twin) { return kernels::heads_of(side(twin), c.heads, c.total, c.offset, c.width); };
      run(stream, kernels::Rope{.batch = c.batch,
                                .x = part(x),
                                .y = part(in_place ? x : y),
                                .cosines = side(cosines),
                                .sines = side(sines),
                                .position_start = c.start,
                                .position_stride = c.stride,
                                .transpose = c.transpose,
                                .accumulate = accumulate});
    };
    if (in_place) {
      run_on_both({&cosines, &sines}, {&x}, call);
      EXPECT_TRUE(x.agrees(tolerance_of(dtype)));
    } else {
      run_on_both({&x, &cosines, &sines}, {&y}, call);
      EXPECT_TRUE(y.agrees(tolerance_of(dtype)));
    }
  }
};

TEST_P(CudaRope, Turns) { check(false, false); }
TEST_P(CudaRope, TurnsInPlace) { check(false, true); }
TEST_P(CudaRope, Adds) { check(true, false); }

INSTANTIATE_TEST_SUITE_P(Sizes, CudaRope,
                         testing::Combine(testing::Values(Case{1, 1, 1, 2, 0, 2}, Case{2, 17, 3, 14, 3, 6, 5},
                                                          Case{1, 33, 16, 192, 128, 64}, Case{2, 40, 1, 576, 512, 64, 0, 1, true},
                                                          Case{1, 9, 5, 30, 1, 28, 100, 16, true}, Case{3, 5, 128, 64, 0, 64},
                                                          Case{1, 3000, 4, 128, 0, 128, 7}, Case{1, 2, 2, 16, 8, 8},
                                                          Case{1, 0, 2, 16, 0, 16}),
                                          testing::Values(DType::kF32, DType::kBf16)));

}  // namespace
}  // namespace hadal::test
