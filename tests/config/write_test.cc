// Canonical YAML: reads back to the same values, bit for bit.
#include "config/write.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "config/load.h"
#include "core/rng.h"

namespace hadal {
namespace {

TEST(ToYaml, DefaultsRoundTrip) {
  const std::string text = to_yaml(Config{});
  EXPECT_EQ(to_yaml(load_config_text(text, "x.yaml").config), text);
}

TEST(ToYaml, AwkwardTextRoundTrips) {
  Config config;
  for (const char* text : {"true",        "null",   "~",       "",           "1e3",  "a: b", "# no comment", "it's \"quoted\"",
                           "back\\slash", "- dash", " blank ", "{brace",     "[x",   "&a",   "*a",           "!tag",
                           "%d",          "@",      "`",       "ünïcødé 深", "a\\n", "yes",  "a/b_c"}) {
    config.run.name = text;
    config.data.sources = {{text[0] == '\0' ? "x" : text, 0.5}, {"second", 2.0}};
    const Config read = load_config_text(to_yaml(config), "x.yaml").config;
    EXPECT_EQ(read.run.name, text);
    ASSERT_EQ(read.data.sources.size(), 2u);
    EXPECT_EQ(read.data.sources[0].path, config.data.sources[0].path);
    EXPECT_EQ(read.data.sources[1].weight, 2.0);
  }
}

// A shortest decimal that loses a bit, or an exponent form that the reader refuses, fails here.
TEST(ToYaml, NumbersRoundTripBitForBit) {
  const Random random(3, RandomPurpose::kInit);
  Config config;
  for (std::uint64_t i = 0; i < 500; ++i) {
    const double scale = std::ldexp(1.0, static_cast<int>(random.bits(3 * i) % 120) - 110);
    config.optim.eps = std::min(1.0, std::max(std::numeric_limits<double>::min(), std::abs(random.normal(3 * i + 1)) * scale));
    config.run.seed = static_cast<std::int64_t>(random.bits(3 * i + 2) >> 1);
    const Config read = load_config_text(to_yaml(config), "x.yaml").config;
    EXPECT_EQ(read.optim.eps, config.optim.eps);
    EXPECT_EQ(read.run.seed, config.run.seed);
  }
}

TEST(ToYaml, HashSeesEveryKeyAndNoSpelling) {
  const Config a = load_config_text("optim: {lr: 1e-3}\n", "a.yaml").config;
  const Config b = load_config_text("# note\noptim:\n  lr: 0.0010\n", "b.yaml").config;
  EXPECT_EQ(config_hash(a), config_hash(b));
  Config c = a;
  c.balance.mtp_schedule.push_back({10, 0.1});
  EXPECT_NE(config_hash(a), config_hash(c));
}

}  // namespace
}  // namespace hadal
