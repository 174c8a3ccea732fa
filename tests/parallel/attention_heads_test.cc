// Attention over tensor-parallel ranks, each with its heads: the partial outputs and input gradients add up to those of one rank,
// and so does every parameter's gradient over the ranks that hold the same slice.
#include "core/error.h"
#include "tests/parallel/attention_variants.h"

namespace hadal {
namespace {

class AttentionHeads : public ::testing::TestWithParam<test::AttentionVariant> {};

TEST_P(AttentionHeads, EqualOneRank) {
  for (const int tp : {2, 4}) {
    EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.tp = tp}, 2, 37));
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionHeads, ::testing::ValuesIn(test::attention_variants()),
                         [](const auto& variant) { return variant.param.name; });

// Planted: ranks that choose by the importance of their own heads alone.
TEST(AttentionHeadShares, SelectionWithoutTheSumIsCaught) {
  struct NoSum : nn::SelectionSum {
    void sum(Stream&, View) const override {}
  };
  const nn::AttentionOptions options = test::sparse(test::small_mla());
  EXPECT_TRUE(test::attention_equals_one_rank(options, {.tp = 2}, 1, 64));
  EXPECT_FALSE(test::attention_equals_one_rank(options, {.tp = 2}, 1, 64, {.selection_sum = std::make_shared<NoSum>()}));
}

TEST(AttentionHeadShares, UnevenSharesAreRefused) {
  const auto refuses = [](nn::AttentionOptions options, std::int64_t tp) {
    options.heads = {0, tp};
    EXPECT_THROW(nn::make_rope_table(options), UserError) << tp;
  };
  refuses(test::small_mla(), 3);
  nn::AttentionOptions gqa = test::many_gqa();
  gqa.num_kv_heads = 2;
  refuses(gqa, 4);
  nn::AttentionOptions groups = test::sparse(test::small_mla());
  groups.num_heads = 12;
  groups.nsa->num_select_groups = 3;
  refuses(groups, 2);
}

// Initial values depend on the logical element alone: the slices of two ranks are the whole.
TEST(AttentionHeadShares, InitialValuesAreThoseOfOneRank) {
  const auto initial = [](const nn::AttentionOptions& options, test::LogicalTensors& into) {
    const auto layer = nn::make_attention(options, "a", nn::make_rope_table(options));
    nn::ParameterList parameters, sliced;
    layer->collect(parameters);
    for (nn::Parameter* parameter : parameters) {
      parameter->initialize(7);
      if (parameter->options().replication == nn::Replication::kTensor) sliced.push_back(parameter);
    }
    test::add_tensors(into, test::values_of(sliced));
    return sliced.size();
  };
  for (nn::AttentionOptions options : {test::many_gqa(), test::sparse(test::many_gqa()), test::small_mla()}) {
    test::LogicalTensors whole, parts;
    EXPECT_GE(initial(options, whole), 3U);
    for (std::int64_t rank = 0; rank < 4; ++rank) {
      options.heads = {rank, 4};
      initial(options, parts);
    }
    EXPECT_TRUE(test::same_tensors(parts, whole, 0.0));
  }
}

}  // namespace
}  // namespace hadal
