// Guards: fused head and cross-entropy against a plain long double formula: loss, token loss, prediction, both gradients, ignored
// tokens, more rows than one chunk; a weight gradient that is overwritten; the same bits for any thread count.
#include "kernels/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/parallel_for.h"
#include "core/rng.h"
#include "tests/kernels/random_tensor.h"

namespace hadal::kernels {
namespace {

template <class T>
struct Result {
  Tensor loss = Tensor::zeros({1}, DType::kF64);
  Tensor token_loss, prediction, d_h, d_w;
};

template <class T>
Result<T> head(const Tensor& h, const Tensor& w, const Tensor& targets, const Tensor& weight, double scale) {
  Stream stream;
  Result<T> r;
  r.token_loss = Tensor::empty({h.shape()[0]}, h.dtype());
  r.prediction = Tensor::empty({h.shape()[0]}, DType::kI32);
  r.d_h = Tensor::empty(h.shape(), h.dtype());
  r.d_w = Tensor::empty(w.shape(), h.dtype());
  for (T& value : r.d_w.template span<T>()) value = T{0.5};
  run(stream, LinearCrossEntropy{.h = h,
                                 .w = w,
                                 .targets = targets,
                                 .loss_weight = weight,
                                 .loss = r.loss,
                                 .token_loss = r.token_loss,
                                 .prediction = r.prediction,
                                 .scale = scale,
                                 .d_h = r.d_h,
                                 .d_w = r.d_w});
  return r;
}

template <class T>
std::vector<long double> exact(const Tensor& tensor) {
  const std::span<const T> values = tensor.span<T>();
  return {values.begin(), values.end()};
}

template <class T>
void check(std::int64_t tokens, std::int64_t width, std::int64_t vocabulary, double tolerance) {
  const Tensor h = random_tensor<T>({tokens, width}, 1), w = random_tensor<T>({vocabulary, width}, 2, 0.7);
  Tensor targets = Tensor::empty({tokens}, DType::kI32), weight = Tensor::empty({tokens}, kDTypeOf<T>);
  const std::span<std::int32_t> target = targets.span<std::int32_t>();
  const Random random(5, RandomPurpose::kInit, 0);
  for (std::size_t t = 0; t < target.size(); ++t) {
    target[t] = t % 7 == 3 ? -1 : static_cast<std::int32_t>(random.bits(t) % static_cast<std::uint64_t>(vocabulary));
    weight.span<T>()[t] = t % 5 == 2 ? T{0} : static_cast<T>(0.25) + static_cast<T>(t % 3);
  }
  const double scale = 0.3;
  const Result<T> r = head<T>(h, w, targets, weight, scale);

  const auto hs = exact<T>(h), ws = exact<T>(w), factors = exact<T>(weight);
  const auto columns = static_cast<std::size_t>(width), words = static_cast<std::size_t>(vocabulary);
  long double loss = 0;
  std::vector<long double> nll(target.size()), d_h(hs.size()), d_w(ws.size(), 0.5L), logits(words);
  for (std::size_t t = 0; t < target.size(); ++t) {
    std::size_t best = 0;
    for (std::size_t v = 0; v < words; ++v) {
      logits[v] = 0;
      for (std::size_t j = 0; j < columns; ++j) logits[v] += hs[t * columns + j] * ws[v * columns + j];
      if (logits[v] > logits[best]) best = v;
    }
    EXPECT_EQ(r.prediction.template span<std::int32_t>()[t], static_cast<std::int32_t>(best));
    const long double top = logits[best];
    long double sum = 0;
    for (std::size_t v = 0; v < words; ++v) sum += std::exp(logits[v] - top);
    const long double factor = target[t] < 0 ? 0.0L : factors[t];
    if (factor == 0) continue;
    const auto wanted = static_cast<std::size_t>(target[t]);
    nll[t] = std::log(sum) + top - logits[wanted];
    loss += factor * nll[t];
    for (std::size_t v = 0; v < words; ++v) {
      const long double g = scale * factor * (std::exp(logits[v] - top) / sum - (v == wanted ? 1.0L : 0.0L));
      for (std::size_t j = 0; j < columns; ++j) {
        d_h[t * columns + j] += g * ws[v * columns + j];
        d_w[v * columns + j] += g * hs[t * columns + j];
      }
    }
  }
  const auto distance = [](const std::vector<long double>& a, const std::vector<long double>& b) {
    long double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(a[i] - b[i]));
    return static_cast<double>(worst);
  };
  EXPECT_LE(distance(nll, exact<T>(r.token_loss)), tolerance);
  EXPECT_LE(distance(d_h, exact<T>(r.d_h)), tolerance);
  EXPECT_LE(distance(d_w, exact<T>(r.d_w)), tolerance);
  EXPECT_NEAR(r.loss.template span<double>()[0], static_cast<double>(loss), tolerance * static_cast<double>(tokens));

  const int threads = num_threads();
  for (int count = 1; count <= 3; ++count) {
    set_num_threads(count);
    const Result<T> again = head<T>(h, w, targets, weight, scale);
    EXPECT_EQ(again.loss.template span<double>()[0], r.loss.template span<double>()[0]);
    EXPECT_EQ(std::memcmp(again.d_h.view().data, r.d_h.view().data, r.d_h.bytes()), 0);
    EXPECT_EQ(std::memcmp(again.d_w.view().data, r.d_w.view().data, r.d_w.bytes()), 0);
  }
  set_num_threads(threads);
}

TEST(LinearCrossEntropy, MatchesLongDouble) {
  check<double>(37, 24, 131, 1e-12);
  check<float>(37, 24, 131, 2e-5);
  check<double>(1, 3, 1, 1e-13);
  check<double>(530, 5, 40, 1e-12);
}

// What d_w held does not matter, NaN included: over more than one chunk, and without tokens.
TEST(LinearCrossEntropy, OverwritesTheWeightGradientWhereAsked) {
  for (const std::int64_t tokens : {530, 0}) {
    const Tensor h = random_tensor<double>({tokens, 5}, 1), w = random_tensor<double>({40, 5}, 2), targets = Tensor::zeros({tokens}, DType::kI32);
    Tensor added = Tensor::zeros(w.shape(), DType::kF64), set = Tensor::empty(w.shape(), DType::kF64);
    for (double& value : set.span<double>()) value = std::numeric_limits<double>::quiet_NaN();
    Tensor loss = Tensor::zeros({1}, DType::kF64), token_loss = Tensor::empty({tokens}, DType::kF64);
    Stream stream;
    for (const bool add : {true, false}) {
      run(stream, LinearCrossEntropy{.h = h,
                                     .w = w,
                                     .targets = targets,
                                     .loss = loss,
                                     .token_loss = token_loss,
                                     .d_w = add ? added : set,
                                     .add_to_d_w = add});
    }
    EXPECT_EQ(std::memcmp(added.view().data, set.view().data, set.bytes()), 0) << tokens;
  }
}

TEST(LinearCrossEntropy, RefusesATargetOutsideTheVocabulary) {
  const Tensor h = random_tensor<float>({2, 4}, 1), w = random_tensor<float>({6, 4}, 2);
  Tensor targets = Tensor::zeros({2}, DType::kI32);
  targets.as<std::int32_t>()[1] = 6;
  EXPECT_THROW(head<float>(h, w, targets, Tensor{}, 1), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
