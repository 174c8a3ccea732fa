// Attention over context-parallel ranks, each with two chunks of every sequence, alone and with tensor-parallel heads, against one
// rank: blocks and windows that straddle the chunks' borders, chunks shorter than either.
#include "parallel/context_parallel.h"
#include "tests/parallel/attention_variants.h"

namespace hadal {
namespace {

class AttentionSequence : public ::testing::TestWithParam<test::AttentionVariant> {};

TEST_P(AttentionSequence, EqualsOneRank) {
  for (const std::int64_t seq : {8, 24, 40, 56}) {
    for (const int cp : {2, 4}) EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.cp = cp}, 2, seq));
  }
}

TEST_P(AttentionSequence, WithHeadsEqualsOneRank) {
  EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.cp = 2, .tp = 2}, 2, 40));
  EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.cp = 2, .tp = 4}, 1, 36));
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionSequence, ::testing::ValuesIn(test::attention_variants()),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace hadal
