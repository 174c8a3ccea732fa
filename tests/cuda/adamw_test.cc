// Guards: AdamW and the sum of squares on CUDA: f32 and bf16 moments, the bf16 working copy, the moving average, the clip factor
// taken from a norm on the device, no write at all where that norm is not finite; sizes around a vector and beyond 2^24.
#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

Twin f64_of(double value) {
  Tensor host = Tensor::empty({1}, DType::kF64);
  *host.as<double>() = value;
  return {std::move(host), DType::kF64};
}

Twin squares(Shape shape, DType dtype, std::uint64_t seed) {
  Twin drawn = Twin::normal(shape, dtype, seed);
  Tensor host = Tensor::empty(shape, DType::kF64);
  for (std::int64_t i = 0; i < host.numel(); ++i)
    host.as<double>()[i] = drawn.host().as<double>()[i] * drawn.host().as<double>()[i];
  return {std::move(host), dtype};
}

/// Everything that one step reads and writes. f64 moments stand for bf16 ones on the CPU: rounding them is compared by tolerance.
struct State {
  State(std::int64_t n, DType moments)
      : grad(Twin::normal({n}, DType::kF32, 1, 0.1)),
        value(Twin::normal({n}, DType::kF32, 2)),
        m(Twin::normal({n}, moments, 3, 0.1)),
        v(squares({n}, moments, 4)),
        ema(Twin::normal({n}, DType::kF32, 5)),
        working(Tensor::zeros({n}, DType::kBf16)),
        device_working(Tensor::zeros({n}, DType::kBf16, kGpu)) {}

  kernels::AdamW step(Side side) {
    return {.grad = side(grad),
            .value = side(value),
            .m = side(m),
            .v = side(v),
            .ema = side(ema),
            .working = side.on_device ? device_working.view() : working.view(),
            .rates = side(rates),
            .weight_decay = 0.1,
            .ema_decay = 0.99};
  }

  Twin grad, value, m, v, ema;
  Twin rates{kernels::adamw_rates(0.1, 0.9, 0.95, 3), DType::kF64};
  Tensor working, device_working;  ///< bf16 on both sides
};

class CudaAdamW : public testing::TestWithParam<std::tuple<std::int64_t, DType>> {};

TEST_P(CudaAdamW, AgreesWithTheCpu) {
  const auto [n, moments] = GetParam();
  State s(n, moments);
  run_on_both({&s.grad}, {&s.value, &s.m, &s.v, &s.ema}, [&](Stream& stream, Side side) {
    run(stream, s.step(side));
  });
  EXPECT_TRUE(s.value.agrees(tolerance_of(DType::kF32, 16)));
  EXPECT_TRUE(s.m.agrees(tolerance_of(moments)));
  EXPECT_TRUE(s.v.agrees(tolerance_of(moments)));
  EXPECT_TRUE(s.ema.agrees(tolerance_of(DType::kF32, 4)));
  // The working copy is the rounding of the very value that was stored.
  Stream stream = stream_of(kGpu);
  const Tensor working = to_host(stream, s.device_working), value = to_host(stream, s.value.device());
  for (std::int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(working.as<Bf16>()[i].bits, to_bf16(value.as<float>()[i]).bits) << i;
    ASSERT_EQ(s.working.as<Bf16>()[i].bits, to_bf16(static_cast<float>(s.value.host().as<double>()[i])).bits) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaAdamW,
                         testing::Combine(testing::Values(1, 3, 4, 37, 1024, 4099, 300007),
                                          testing::Values(DType::kF32, DType::kBf16)));

TEST(CudaAdamW, UpdatesAnUnalignedSlice) {
  State s(101, DType::kF32);
  run_on_both({&s.grad}, {&s.value, &s.m, &s.v}, [&](Stream& stream, Side side) {
    kernels::AdamW step = s.step(side);
    const auto slice = [](View view) { return view.rows(1, 99); };
    step.grad = side(s.grad).rows(1, 99);
    step.value = slice(side(s.value));
    step.m = slice(side(s.m));
    step.v = slice(side(s.v));
    step.ema = {};
    step.working = {};
    run(stream, step);
  });
  EXPECT_TRUE(s.value.agrees(tolerance_of(DType::kF32, 16)));
  EXPECT_TRUE(s.m.agrees(tolerance_of(DType::kF32)));
}

class CudaAdamWClip : public testing::TestWithParam<std::pair<double, double>> {};

TEST_P(CudaAdamWClip, TakesTheFactorFromTheNorm) {
  const auto [norm, clip] = GetParam();
  State s(1027, DType::kF32);
  Twin norm_squared = f64_of(norm * norm);
  run_on_both({&s.grad, &norm_squared}, {&s.value, &s.m, &s.v, &s.ema}, [&, clip = clip](Stream& stream, Side side) {
    kernels::AdamW step = s.step(side);
    step.grad_norm_squared = side(norm_squared);
    step.clip_norm = clip;
    run(stream, step);
  });
  EXPECT_TRUE(s.value.agrees(tolerance_of(DType::kF32, 16)));
  EXPECT_TRUE(s.m.agrees(tolerance_of(DType::kF32)));
}

INSTANTIATE_TEST_SUITE_P(Norms, CudaAdamWClip,
                         testing::Values(std::pair{7.5, 1.0}, std::pair{0.25, 1.0}, std::pair{0.0, 1.0}, std::pair{7.5, 0.0}));

TEST(CudaAdamW, ANormThatIsNotFiniteLeavesEverything) {
  for (const double norm : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    State s(1027, DType::kBf16);
    Twin norm_squared = f64_of(norm);
    const std::vector<std::byte> before = s.value.device_bytes(), m = s.m.device_bytes(), v = s.v.device_bytes(),
                                 ema = s.ema.device_bytes();
    run_on_both({&s.grad, &norm_squared}, {&s.value, &s.m, &s.v, &s.ema}, [&](Stream& stream, Side side) {
      kernels::AdamW step = s.step(side);
      step.grad_norm_squared = side(norm_squared);
      step.clip_norm = 1;
      run(stream, step);
    });
    EXPECT_TRUE(s.value.device_bytes() == before && s.m.device_bytes() == m && s.v.device_bytes() == v &&
                s.ema.device_bytes() == ema);
    EXPECT_TRUE(s.value.agrees(0));
    Stream stream = stream_of(kGpu);
    const Tensor working = to_host(stream, s.device_working);
    for (const Bf16 x : working.span<Bf16>()) ASSERT_EQ(x.bits, 0);
  }
}

class CudaSumSquares : public testing::TestWithParam<std::int64_t> {};

TEST_P(CudaSumSquares, AccumulatesInDouble) {
  const std::int64_t n = GetParam();
  Twin x = Twin::normal({n}, DType::kF32, 1), result = f64_of(3);
  run_on_both({&x}, {&result},
              [&](Stream& stream, Side side) { run(stream, kernels::SumSquares{.x = side(x), .result = side(result)}); });
  EXPECT_TRUE(result.agrees(1e-12));
  if (n < 2) return;
  Twin rest = f64_of(0);
  run_on_both({&x}, {&rest}, [&](Stream& stream, Side side) {
    run(stream, kernels::SumSquares{.x = side(x).rows(1, n), .result = side(rest)});
  });
  EXPECT_TRUE(rest.agrees(1e-12));
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaSumSquares, testing::Values(0, 1, 7, 8192, 8193, 1000003, (1 << 24) + 5));

}  // namespace
}  // namespace hadal::test
