// Guards: conversion among f64, f32 and bf16 rounds to nearest even, adds when asked to, and refuses what does not match.
#include "kernels/cast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace hadal::kernels {
namespace {

Tensor doubles(const std::vector<double>& values) {
  Tensor tensor = Tensor::empty({static_cast<std::int64_t>(values.size())}, DType::kF64);
  std::copy(values.begin(), values.end(), tensor.as<double>());
  return tensor;
}

/// x through `middle` and back.
std::vector<double> through(const std::vector<double>& x, DType middle) {
  const Tensor from = doubles(x);
  Tensor between = Tensor::empty(from.shape(), middle), back = Tensor::empty(from.shape(), DType::kF64);
  Stream stream;
  run(stream, Cast{.x = from, .y = between});
  run(stream, Cast{.x = between, .y = back});
  return {back.as<double>(), back.as<double>() + back.numel()};
}

TEST(Cast, RoundsToNearestEven) {
  const std::vector<double> x{1.0, 1.00390625, 1.01171875, -1.00390625, 0.1, -0.0};
  EXPECT_EQ(through(x, DType::kBf16), (std::vector<double>{1.0, 1.0, 1.015625, -1.0, 0.10009765625, -0.0}));
  EXPECT_EQ(through(x, DType::kF32), (std::vector<double>{1.0, 1.00390625, 1.01171875, -1.00390625, static_cast<double>(0.1f), -0.0}));
  EXPECT_EQ(through(x, DType::kF64), x);
}

TEST(Cast, AddsAndRoundsOnce) {
  Stream stream;
  Tensor x = Tensor::empty({2}, DType::kF32), y = Tensor::empty({2}, DType::kBf16);
  x.as<float>()[0] = 0.00390625f;  // half a step of bf16 at 1
  x.as<float>()[1] = 0.005f;
  for (int i = 0; i < 2; ++i) y.as<Bf16>()[i] = to_bf16(1.0f);
  run(stream, Cast{.x = x, .y = y, .accumulate = true});
  EXPECT_EQ(to_float(y.as<Bf16>()[0]), 1.0f);
  EXPECT_EQ(to_float(y.as<Bf16>()[1]), 1.0078125f);
  Tensor sum = doubles({10, 20});
  run(stream, Cast{.x = y, .y = sum, .accumulate = true});
  EXPECT_EQ(sum.as<double>()[0], 11);
  EXPECT_EQ(sum.as<double>()[1], 21.0078125);
}

TEST(Cast, RefusesOtherSizesAndDtypes) {
  Stream stream;
  Tensor x = Tensor::zeros({2}, DType::kF32), longer = Tensor::zeros({3}, DType::kF32), ints = Tensor::zeros({2}, DType::kI32);
  EXPECT_THROW(run(stream, Cast{.x = x, .y = longer}), ContractError);
  EXPECT_THROW(run(stream, Cast{.x = x, .y = ints}), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
