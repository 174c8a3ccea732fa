// Guards: SwiGLU on CUDA: warps and blocks over rows, aligned and not, with and without row weights, gradients over their input;
// gates so large that exponentials leave the range give numbers.
#include "kernels/swiglu.h"

#include <gtest/gtest.h>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

class CudaSwiglu : public testing::TestWithParam<std::tuple<std::pair<std::int64_t, std::int64_t>, bool, DType>> {};

TEST_P(CudaSwiglu, AgreesWithTheCpu) {
  const auto [size, weighted, dtype] = GetParam();
  const auto [rows, width] = size;
  const bool has_weight = weighted;
  Twin gate_up = Twin::normal({rows, 2 * width}, dtype, 1, 2.0), weight = Twin::normal({rows}, DType::kF32, 2);
  Twin h = Twin::output({rows, width}, dtype);
  const auto weight_of = [&](Side side) { return has_weight ? side(weight) : View{}; };
  run_on_both({&gate_up, &weight}, {&h}, [&](Stream& stream, Side side) {
    run(stream, kernels::SwigluForward{.gate_up = side(gate_up), .row_weight = weight_of(side), .h = side(h)});
  });
  EXPECT_TRUE(h.agrees(tolerance_of(dtype, 4)));

  Twin d_h = Twin::normal({rows, width}, dtype, 3), d_gate_up = Twin::output({rows, 2 * width}, dtype),
       d_weight = Twin::output({rows}, DType::kF32);
  const auto backward = [&](Stream& stream, Side side, Twin& to) {
    run(stream, kernels::SwigluBackward{.gate_up = side(gate_up),
                                        .row_weight = weight_of(side),
                                        .d_h = side(d_h),
                                        .d_gate_up = side(to),
                                        .d_row_weight = has_weight ? side(d_weight) : View{}});
  };
  run_on_both({&gate_up, &weight, &d_h}, {&d_gate_up, &d_weight},
              [&](Stream& stream, Side side) { backward(stream, side, d_gate_up); });
  EXPECT_TRUE(d_gate_up.agrees(tolerance_of(dtype, 4)));
  // In bf16 too the sum is of f32 terms: the hardware's exponential is what it can be off by.
  EXPECT_TRUE(d_weight.agrees(tolerance_of(DType::kF32, width) + (dtype == DType::kBf16 ? 2e-6 : 0.0)));
  run_on_both({&weight, &d_h}, {&gate_up, &d_weight}, [&](Stream& stream, Side side) { backward(stream, side, gate_up); });
  EXPECT_TRUE(gate_up.agrees(tolerance_of(dtype, 4)));
}

using Size = std::pair<std::int64_t, std::int64_t>;
INSTANTIATE_TEST_SUITE_P(Sizes, CudaSwiglu,
                         testing::Combine(testing::Values(Size{1, 1}, Size{3, 17}, Size{40, 8}, Size{9, 1408}, Size{700, 256},
                                                          Size{5, 1407}, Size{6, 10944}, Size{2, 10945}, Size{0, 64}),
                                          testing::Bool(), testing::Values(DType::kF32, DType::kBf16)));

class CudaSwigluExtremes : public testing::TestWithParam<DType> {};

TEST_P(CudaSwigluExtremes, GateOfAnySizeGivesANumber) {
  const double gates[] = {-1e30, -200, -89, -87.5, 0, 89, 200, 1e30};
  constexpr std::int64_t kWidth = 8;
  Tensor host = Tensor::empty({1, 2 * kWidth}, DType::kF64);
  for (int i = 0; i < kWidth; ++i) {
    host.as<double>()[i] = gates[i];
    host.as<double>()[kWidth + i] = 1;
  }
  Twin gate_up(std::move(host), GetParam()), h = Twin::output({1, kWidth}, GetParam());
  Twin d_h = Twin::normal({1, kWidth}, GetParam(), 3), d_gate_up = Twin::output({1, 2 * kWidth}, GetParam());
  run_on_both({&gate_up}, {&h}, [&](Stream& stream, Side side) {
    run(stream, kernels::SwigluForward{.gate_up = side(gate_up), .row_weight = {}, .h = side(h)});
  });
  EXPECT_TRUE(h.agrees(tolerance_of(GetParam())));
  run_on_both({&gate_up, &d_h}, {&d_gate_up}, [&](Stream& stream, Side side) {
    run(stream,
        kernels::SwigluBackward{
            .gate_up = side(gate_up), .row_weight = {}, .d_h = side(d_h), .d_gate_up = side(d_gate_up), .d_row_weight = {}});
  });
  EXPECT_TRUE(d_gate_up.agrees(tolerance_of(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(DTypes, CudaSwigluExtremes, testing::Values(DType::kF32, DType::kBf16));

}  // namespace
}  // namespace hadal::test
