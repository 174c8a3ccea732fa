// Guards: numbers made many at a time have the bits of Random::normal one by one, those next to zero and those that the fast way is not
// sure of included; starts and counts of any size, factors of any size, an index that passes 2^32.
#include "kernels/normal_values.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/cpu/simd/normal.h"

namespace hadal::kernels {
namespace {

const Random& random_stream() {
  static const Random random(3, RandomPurpose::kInit, stream_of("w"));
  return random;
}

void expect_same(std::uint64_t first, std::size_t count, double std) {
  std::vector<float> values(count);
  normal_values(random_stream(), first, std, values);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto want = static_cast<float>(std * random_stream().normal(first + i));
    wrong += std::bit_cast<std::uint32_t>(want) != std::bit_cast<std::uint32_t>(values[i]) ? 1 : 0;
  }
  EXPECT_EQ(wrong, 0u) << count << " from " << first << " times " << std;
}

TEST(NormalValues, AreThoseOneByOne) {
  for (const std::size_t count : {0, 1, 3, 4, 15, 16, 17, 255, 256, 257, 1000}) {
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{7}, (std::uint64_t{1} << 32) - 5, ~std::uint64_t{0} - 2000}) {
      expect_same(first, count, 0.02);
    }
  }
  // f32 below its normal range, at its end, and none at all: 0 * -x is -0.
  for (const double std : {1.0, 3e-45, 1e-40, 3e38, 0.0, -0.5}) expect_same(11, 10000, std);
  expect_same(1000, 3'000'000, 0.006);
}

/// The way back to Random::normal is taken: about once in four million numbers, and wherever one is next to zero.
TEST(NormalValues, WhatIsNotSureIsSaid) {
  const simd::NormalLoop& loop = simd::normal_loop();
  const simd::NormalStream stream{{random_stream().key()[0], random_stream().key()[1]}, {random_stream().stream()[0], random_stream().stream()[1]}};
  std::vector<float> values(simd::NormalLoop::kMost);
  std::vector<std::uint8_t> unsure(values.size());
  // A factor that moves each product onto the middle between two floats, as far as a double goes.
  int found = 0;
  for (std::uint64_t i = 0; i < 256; ++i) {
    const double normal = random_stream().normal(i);
    const auto value = static_cast<float>(normal);
    const double middle = (static_cast<double>(value) + static_cast<double>(std::nextafterf(value, 10.0f))) / 2;
    const int here = loop.fill(stream, i, middle / normal, 1, values.data(), unsure.data());
    found += here;
  }
  EXPECT_EQ(found, 256);
  EXPECT_EQ(unsure[0], 0);
  EXPECT_LE(loop.fill(stream, 0, 1.0, 256, values.data(), unsure.data()), 1);
}

TEST(NormalValues, InF64AreTheLibrarys) {
  std::vector<double> values(777);
  normal_values(random_stream(), 5, 0.3, values);
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], 0.3 * random_stream().normal(5 + i)) << i;
}

}  // namespace
}  // namespace hadal::kernels
