// Guards: linear + cross-entropy on CUDA: loss, token losses, predictions and both gradients, with ignored and weightless tokens,
// rows that are not aligned, small and large vocabularies, without gradients, a weight gradient that is
// overwritten; ties and exact logits in bf16; several chunks.
#include "kernels/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

struct Case {
  std::int64_t tokens, width, vocabulary;
  bool weighted = true;
  bool gradients = true;
  bool add = true;
};

std::vector<std::int64_t> targets_of(const Case& c) {
  std::vector<std::int64_t> targets(static_cast<std::size_t>(c.tokens));
  for (std::int64_t t = 0; t < c.tokens; ++t)
    targets[static_cast<std::size_t>(t)] = t % 5 == 1 ? -1 : (t * 37 + 11) % c.vocabulary;
  return targets;
}

Twin weights_of(std::int64_t tokens) {
  Tensor host = Tensor::empty({tokens}, DType::kF64);
  for (std::int64_t t = 0; t < tokens; ++t) host.as<double>()[t] = t % 7 == 3 ? 0.0 : 0.25 + 0.125 * static_cast<double>(t % 3);
  return {std::move(host), DType::kF32};
}

class CudaLinearCrossEntropy : public testing::TestWithParam<std::tuple<Case, DType>> {};

TEST_P(CudaLinearCrossEntropy, AgreesWithTheCpu) {
  const auto [c, dtype] = GetParam();
  // Logits of about normal(0, 1).
  Twin h = Twin::normal({c.tokens, c.width}, dtype, 1),
       w = Twin::normal({c.vocabulary, c.width}, dtype, 2, 1 / std::sqrt(static_cast<double>(c.width)));
  Twin targets = Twin::ints({c.tokens}, targets_of(c)), weight = weights_of(c.tokens);
  Twin loss = Twin::output({1}, DType::kF64), token_loss = Twin::output({c.tokens}, DType::kF32);
  Twin d_h = Twin::output(h.shape(), dtype), d_w = c.add ? Twin::normal(w.shape(), DType::kF32, 3, 0.1) : Twin::output(w.shape(), DType::kF32);
  run_on_both({&h, &w, &targets, &weight}, {&loss, &token_loss, &d_h, &d_w}, [&, c = c](Stream& stream, Side side) {
    run(stream, kernels::LinearCrossEntropy{.h = side(h),
                                            .w = side(w),
                                            .targets = side(targets),
                                            .loss_weight = c.weighted ? side(weight) : View{},
                                            .loss = side(loss),
                                            .token_loss = side(token_loss),
                                            .scale = 0.5,
                                            .d_h = c.gradients ? side(d_h) : View{},
                                            .d_w = c.gradients ? side(d_w) : View{},
                                            .add_to_d_w = c.add});
  });
  // bf16: logits of size 4 are held to 2^-9 of their size, so a loss is off by less than 1e-2 of at least 2, probabilities by 1
  // %.
  const double tolerance = dtype == DType::kBf16 ? 8e-3 : tolerance_of(DType::kF32, c.width + c.vocabulary);
  EXPECT_TRUE(token_loss.agrees(tolerance));
  EXPECT_TRUE(loss.agrees(tolerance));
  EXPECT_TRUE(d_h.agrees(tolerance));
  EXPECT_TRUE(d_w.agrees(tolerance));
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaLinearCrossEntropy,
                         testing::Combine(testing::Values(Case{1, 8, 3}, Case{5, 16, 7, false}, Case{40, 64, 1000},
                                                          Case{130, 72, 4103}, Case{64, 128, 32000, false},
                                                          Case{33, 64, 5000, true, false}, Case{0, 16, 40}, Case{9, 32, 120000},
                                                          Case{40, 64, 1000, true, true, false}, Case{0, 16, 40, true, true, false}),
                                          testing::Values(DType::kF32, DType::kBf16)));

// Small integers: every logit is exact in bf16 too, most rows have several greatest ones.
TEST(CudaLinearCrossEntropyTies, PredictsTheLowestOfEqualLogits) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const std::int64_t vocabulary : {5, 700, 9001}) {
      const Case c{57, 8, vocabulary};
      const auto integers = [&](Shape shape, std::int64_t factor) {
        Tensor host = Tensor::empty(shape, DType::kF64);
        for (std::int64_t i = 0; i < host.numel(); ++i) host.as<double>()[i] = static_cast<double>(i * factor % 101 % 5 - 2);
        return Twin(std::move(host), dtype);
      };
      Twin h = integers({c.tokens, c.width}, 29), w = integers({vocabulary, c.width}, 53);
      Twin targets = Twin::ints({c.tokens}, targets_of(c)), prediction = Twin::ints({c.tokens}, targets_of(c));
      Twin loss = Twin::output({1}, DType::kF64), token_loss = Twin::output({c.tokens}, DType::kF32);
      run_on_both({&h, &w, &targets}, {&loss, &token_loss, &prediction}, [&](Stream& stream, Side side) {
        run(stream, kernels::LinearCrossEntropy{.h = side(h),
                                                .w = side(w),
                                                .targets = side(targets),
                                                .loss = side(loss),
                                                .token_loss = side(token_loss),
                                                .prediction = side(prediction)});
      });
      EXPECT_TRUE(prediction.equal());
      EXPECT_TRUE(token_loss.agrees(tolerance_of(DType::kF32, 64)));
      EXPECT_TRUE(loss.agrees(tolerance_of(DType::kF32, 64)));
    }
  }
}

// 508 MiB hold 1902 rows of 140000 bf16 logits: the CPU would take minutes, so the device is compared with itself, part by part.
TEST(CudaLinearCrossEntropyChunks, EqualTheirParts) {
  constexpr std::int64_t kTokens = 2000, kWidth = 32, kVocabulary = 140000, kCut = 500;
  Twin h = Twin::normal({kTokens, kWidth}, DType::kBf16, 1), w = Twin::normal({kVocabulary, kWidth}, DType::kBf16, 2, 0.2);
  Twin targets = Twin::ints({kTokens}, targets_of({kTokens, kWidth, kVocabulary}));
  Twin whole = Twin::output({kTokens}, DType::kF32), parts = Twin::output({kTokens}, DType::kF32),
       loss = Twin::output({1}, DType::kF64);
  Twin d_h = Twin::output(h.shape(), DType::kBf16), d_h_parts = Twin::output(h.shape(), DType::kBf16);
  Tensor d_w = Tensor::zeros({kVocabulary, kWidth}, DType::kF32, kGpu),
         d_w_parts = Tensor::zeros({kVocabulary, kWidth}, DType::kF32, kGpu);
  Stream stream = stream_of(kGpu);
  const auto over = [&](std::int64_t begin, std::int64_t end, Twin& losses, Twin& gradient, View weights) {
    run(stream, kernels::LinearCrossEntropy{.h = h.device().rows(begin, end),
                                            .w = w.device(),
                                            .targets = targets.device().rows(begin, end),
                                            .loss = loss.device(),
                                            .token_loss = losses.device().rows(begin, end),
                                            .d_h = gradient.device().rows(begin, end),
                                            .d_w = weights});
  };
  over(0, kTokens, whole, d_h, d_w);
  for (std::int64_t begin = 0; begin < kTokens; begin += kCut) over(begin, begin + kCut, parts, d_h_parts, d_w_parts);
  const auto difference = [&](ConstView a, ConstView b) {
    const Tensor left = to_host(stream, a), right = to_host(stream, b);
    double worst = 0, largest = 0;
    for (std::int64_t i = 0; i < left.numel(); ++i) {
      const auto value = [&](const Tensor& x) {
        return static_cast<double>(x.dtype() == DType::kBf16 ? to_float(x.as<Bf16>()[i]) : x.as<float>()[i]);
      };
      worst = std::max(worst, std::abs(value(left) - value(right)));
      largest = std::max(largest, std::abs(value(left)));
    }
    EXPECT_GT(largest, 0);
    return worst / largest;
  };
  EXPECT_LE(difference(whole.device(), parts.device()), 1e-3);
  EXPECT_LE(difference(d_h.device(), d_h_parts.device()), 1e-2);
  EXPECT_LE(difference(d_w, d_w_parts), 1e-2);
}

}  // namespace
}  // namespace hadal::test
