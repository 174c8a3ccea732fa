// Guards: the three ops of a split vocabulary on CUDA, for two ranks' columns: terms and statistics, losses from all ranks'
// statistics, gradients; ignored rows, targets on either side, ties between ranks and between columns.
#include "kernels/vocab_cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

using kernels::kNumVocabStatistics;

class CudaVocabCrossEntropy : public testing::TestWithParam<std::tuple<std::pair<std::int64_t, std::int64_t>, DType>> {};

TEST_P(CudaVocabCrossEntropy, AgreesWithTheCpu) {
  const auto [size, dtype] = GetParam();
  const auto [rows, columns] = size;
  const std::int64_t first = 1000;
  // bf16 terms differ by their own rounding and by the hardware's exponential.
  const double close = tolerance_of(dtype, 16), sums = tolerance_of(DType::kF32, columns) + (dtype == DType::kBf16 ? 4e-6 : 0.0);
  Twin logits = Twin::normal({rows, columns}, dtype, 1, 2.0);
  std::vector<std::int64_t> wanted(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r)
    wanted[static_cast<std::size_t>(r)] = r % 4 == 3 ? -1 : r % 4 == 2 ? r % 1000 : first + r * 7 % columns;
  Twin targets = Twin::ints({rows}, wanted), statistics = Twin::output({rows, kNumVocabStatistics}, DType::kF32);
  run_on_both({&targets}, {&logits, &statistics}, [&, n = first](Stream& stream, Side side) {
    run(stream, kernels::VocabSoftmaxTerms{
                    .logits = side(logits), .targets = side(targets), .first_column = n, .statistics = side(statistics)});
  });
  EXPECT_TRUE(logits.agrees(close));
  // Column by column: predictions are a thousand times larger than the rest.
  Stream stream = stream_of(kGpu);
  const Tensor got = to_host(stream, statistics.device());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (int s = 0; s < kNumVocabStatistics; ++s) {
      const double want = statistics.host().as<double>()[r * kNumVocabStatistics + s],
                   have = got.as<float>()[r * kNumVocabStatistics + s];
      if (s == kernels::kVocabSum) {
        EXPECT_NEAR(have, want, sums * want) << r;
      } else {
        EXPECT_EQ(have, want) << r << " statistic " << s;
      }
    }
  }

  Twin factor = Twin::normal({rows}, DType::kF32, 4, 1e-3), weight = Twin::normal({rows}, DType::kF32, 5, 1e-3);
  run_on_both({&targets, &factor, &weight}, {&logits}, [&, n = first](Stream& on, Side side) {
    run(on, kernels::VocabSoftmaxGradient{.terms = side(logits),
                                          .factor = side(factor),
                                          .targets = side(targets),
                                          .loss_weight = side(weight),
                                          .scale = 0.7,
                                          .first_column = n});
  });
  EXPECT_TRUE(logits.agrees(2 * close));
}

using Size = std::pair<std::int64_t, std::int64_t>;
INSTANTIATE_TEST_SUITE_P(Sizes, CudaVocabCrossEntropy,
                         testing::Combine(testing::Values(Size{1, 1}, Size{5, 7}, Size{9, 1000}, Size{40, 4099}, Size{6, 51200},
                                                          Size{3, 90001}),
                                          testing::Values(DType::kF32, DType::kBf16)));

TEST(CudaVocabCrossEntropyLosses, AgreeWithTheCpu) {
  constexpr std::int64_t kRanks = 3, kRows = 301;
  Twin drawn = Twin::normal({kRanks, kRows, kNumVocabStatistics}, DType::kF32, 1);
  Tensor host = Tensor::empty({kRanks, kRows, kNumVocabStatistics}, DType::kF64);
  std::vector<std::int64_t> wanted(kRows);
  for (std::int64_t r = 0; r < kRows; ++r) {
    wanted[static_cast<std::size_t>(r)] = r % 5 == 4 ? -1 : r;
    for (std::int64_t rank = 0; rank < kRanks; ++rank) {
      double* const of = host.as<double>() + (rank * kRows + r) * kNumVocabStatistics;
      const double* const from = drawn.host().as<double>() + (rank * kRows + r) * kNumVocabStatistics;
      of[kernels::kVocabTop] = r % 3 == 0 ? 2.5 : 3 * from[0];  // ties between ranks
      of[kernels::kVocabSum] = 1 + 10 * std::abs(from[1]);
      of[kernels::kVocabTargetLogit] = rank == r % kRanks ? from[2] : 0.0;
      of[kernels::kVocabPrediction] = static_cast<double>(100 * rank + r % 100);
    }
  }
  Twin statistics(std::move(host), DType::kF32), targets = Twin::ints({kRows}, wanted);
  Tensor weights = Tensor::empty({kRows}, DType::kF64);
  for (std::int64_t r = 0; r < kRows; ++r) weights.as<double>()[r] = r % 7 == 6 ? 0.0 : 0.5 + static_cast<double>(r % 3);
  Twin weight(std::move(weights), DType::kF32);
  Twin token_loss = Twin::output({kRows}, DType::kF32), factor = Twin::output({kRows}, DType::kF32),
       prediction = Twin::ints({kRows}, wanted);
  run_on_both({&statistics, &targets, &weight}, {&token_loss, &factor, &prediction}, [&](Stream& stream, Side side) {
    run(stream, kernels::VocabCrossEntropy{.statistics = side(statistics),
                                           .rank = 1,
                                           .targets = side(targets),
                                           .loss_weight = side(weight),
                                           .scale = 0.3,
                                           .token_loss = side(token_loss),
                                           .factor = side(factor),
                                           .prediction = side(prediction)});
  });
  EXPECT_TRUE(token_loss.agrees(tolerance_of(DType::kF32, 8)));
  EXPECT_TRUE(factor.agrees(tolerance_of(DType::kF32, 8)));
  EXPECT_TRUE(prediction.equal());
}

}  // namespace
}  // namespace hadal::test
