// Embedding and head over shares of a vocabulary against the whole one: losses, predictions, gradients of rows and weights.
#include "parallel/vocabulary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "comm/local/local_group.h"
#include "core/rng.h"

namespace hadal::parallel {
namespace {

constexpr std::int64_t kVocab = 29, kHidden = 6, kTokens = 1032;  // shares are unequal, rows fill more than one chunk

Tensor random_rows(std::int64_t rows, std::uint64_t seed) {
  Tensor x = Tensor::empty({rows, kHidden}, DType::kF64);
  const Random random(seed, RandomPurpose::kSynthetic);
  for (std::int64_t i = 0; i < x.numel(); ++i) x.as<double>()[i] = random.normal(static_cast<std::uint64_t>(i));
  return x;
}

Prediction random_prediction() {
  Prediction p;
  p.targets = Tensor::empty({kTokens}, DType::kI32);
  p.weights = Tensor::empty({kTokens}, DType::kF64);
  const Random random(5, RandomPurpose::kSynthetic);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const auto draw = static_cast<std::uint64_t>(t);
    p.targets.as<std::int32_t>()[t] = t % 11 == 0 ? -1 : static_cast<std::int32_t>(random.below(draw, kVocab));
    p.weights.as<double>()[t] = t % 7 == 0 ? 0.0 : 1.0 / kTokens;
  }
  return p;
}

/// What one rank computes over the whole vocabulary.
struct Whole {
  Tensor h = random_rows(kTokens, 1), d_h = Tensor::empty({kTokens, kHidden}, DType::kF64);
  Tensor embedded, embedding_grad, head_grad;
  Head::Result result;
  Tensor loss = Tensor::zeros({1}, DType::kF64);

  Whole() {
    Stream stream;
    const Prediction prediction = random_prediction();
    Head head("head", kVocab, kHidden, 0.5, DType::kF64, nullptr);
    head.weight().initialize(3);
    result = head.loss(stream, h, prediction, 0.7, loss, d_h, true);
    head_grad = Tensor::empty({kVocab, kHidden}, DType::kF64);
    std::memcpy(head_grad.view().data, head.weight().grad().data, head_grad.bytes());
    Embedding embedding("embedding", kVocab, kHidden, 0.5, DType::kF64, nullptr);
    embedding.weight().initialize(4);
    embedded = embedding.forward(stream, prediction.targets);
    embedding.backward(stream, prediction.targets, h);
    embedding_grad = Tensor::empty({kVocab, kHidden}, DType::kF64);
    std::memcpy(embedding_grad.view().data, embedding.weight().grad().data, embedding_grad.bytes());
  }
};

void expect_rows(ConstView mine, ConstView whole, std::int64_t begin, const char* what) {
  double worst = 0;
  for (std::int64_t i = 0; i < mine.numel(); ++i) {
    worst = std::max(worst, std::abs(mine.as<double>()[i] - whole.as<double>()[begin * kHidden + i]));
  }
  EXPECT_LE(worst, 1e-13) << what;
}

class Shares : public testing::TestWithParam<int> {};

TEST_P(Shares, EqualTheWholeVocabulary) {
  const Whole whole;
  comm::run_local_group(GetParam(), [&](comm::Communicator& tp) {
    Stream stream;
    const Prediction prediction = random_prediction();
    const std::int64_t rows = kTokens / tp.size(), first = rows * tp.rank();
    const VocabularyRange range = vocabulary_range(kVocab, {tp.rank(), tp.size()});

    Head head("head", kVocab, kHidden, 0.5, DType::kF64, &tp);
    head.weight().initialize(3);
    EXPECT_EQ(head.weight().shape()[0], range.end - range.begin);
    Tensor d_h = Tensor::empty({rows, kHidden}, DType::kF64);
    Tensor loss = Tensor::zeros({1}, DType::kF64);
    const Head::Result result = head.loss(stream, whole.h.view().rows(first, first + rows), prediction, 0.7, loss, d_h, true);
    EXPECT_NEAR(tp.all_reduce_sum(*loss.as<double>()), *whole.loss.as<double>(), 1e-13);
    EXPECT_EQ(std::memcmp(result.prediction.view().data, whole.result.prediction.view().data, result.prediction.bytes()), 0);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      EXPECT_NEAR(result.token_loss.as<double>()[t], whole.result.token_loss.as<double>()[t], 1e-12);
    }
    expect_rows(d_h, whole.d_h, first, "d_h");
    expect_rows(head.weight().grad(), whole.head_grad, range.begin, "head gradient");

    Embedding embedding("embedding", kVocab, kHidden, 0.5, DType::kF64, &tp);
    embedding.weight().initialize(4);
    expect_rows(embedding.forward(stream, prediction.targets), whole.embedded, first, "embedding");
    embedding.backward(stream, prediction.targets, whole.h.view().rows(first, first + rows));
    expect_rows(embedding.weight().grad(), whole.embedding_grad, range.begin, "embedding gradient");
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, Shares, testing::Values(2, 3, 4));

}  // namespace
}  // namespace hadal::parallel
