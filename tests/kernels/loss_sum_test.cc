// Guards: the weighted sum of token losses runs in f64 and in token order, without weights counts each token once, is 0 of no tokens,
// and overwrites.
#include "kernels/loss_sum.h"

#include <gtest/gtest.h>

#include "core/rng.h"

namespace hadal::kernels {
namespace {

Tensor normals(std::int64_t count, DType dtype, std::uint64_t seed) {
  const Random random(seed, RandomPurpose::kSynthetic);
  Tensor tensor = Tensor::empty({count}, dtype);
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = random.normal(static_cast<std::uint64_t>(i));
    if (dtype == DType::kF32) {
      tensor.as<float>()[i] = static_cast<float>(value);
    } else {
      tensor.as<double>()[i] = value;
    }
  }
  return tensor;
}

double loss_of(const Tensor& token_loss, ConstView weight) {
  Stream stream;
  Tensor loss = Tensor::empty({1}, DType::kF64);
  *loss.as<double>() = 1e9;
  run(stream, LossSum{.token_loss = token_loss, .loss_weight = weight, .loss = loss});
  return *loss.as<double>();
}

TEST(LossSum, IsInTokenOrderInF64) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    for (const std::int64_t count : {1, 5, 4097}) {
      const Tensor token_loss = normals(count, dtype, 1), weight = normals(count, dtype, 2);
      const auto at = [](const Tensor& x, std::int64_t i) {
        return x.dtype() == DType::kF32 ? static_cast<double>(x.as<float>()[i]) : x.as<double>()[i];
      };
      double weighted = 0, plain = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        weighted += at(weight, i) * at(token_loss, i);
        plain += at(token_loss, i);
      }
      EXPECT_DOUBLE_EQ(loss_of(token_loss, weight), weighted);
      EXPECT_EQ(loss_of(token_loss, {}), plain);
    }
  }
}

TEST(LossSum, IsZeroOfNoTokens) { EXPECT_EQ(loss_of(Tensor::empty({0}, DType::kF32), {}), 0.0); }

TEST(LossSum, RefusesWeightsOfOtherTokens) {
  const Tensor token_loss = normals(4, DType::kF32, 1);
  EXPECT_THROW(loss_of(token_loss, normals(3, DType::kF32, 2)), ContractError);
  EXPECT_THROW(loss_of(token_loss, normals(4, DType::kF64, 2)), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
