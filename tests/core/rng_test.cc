#include "core/rng.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

// Known answers of Philox 4x32-10 as published with Random123.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (std::array<std::uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox({0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, {0xffffffffu, 0xffffffffu}),
            (std::array<std::uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
}

TEST(Random, NormalHasUnitVariance) {
  const Random random(7, RandomPurpose::kInit, stream_of("model.norm.weight"));
  double sum = 0, sum_squares = 0;
  constexpr int kCount = 100000;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal(static_cast<std::uint64_t>(i));
    sum += x;
    sum_squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.02);
  EXPECT_NEAR(sum_squares / kCount, 1.0, 0.02);
}

TEST(Random, SeedsAndPurposesDiffer) {
  const Random a(1, RandomPurpose::kInit), b(2, RandomPurpose::kInit), c(1, RandomPurpose::kGenerate);
  EXPECT_NE(a.bits(0), b.bits(0));
  EXPECT_NE(a.bits(0), c.bits(0));
}

}  // namespace
}  // namespace hadal
