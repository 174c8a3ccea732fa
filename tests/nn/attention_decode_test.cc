// Decoding against whole sequences: token by token, in chunks of any size, in both forms of latent attention, and after taking
// tokens back; and what the caches hold.
#include <gtest/gtest.h>

#include "tests/nn/attention_reference.h"
#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

constexpr std::int64_t kTokens = 41;

struct Variant {
  std::string name;
  nn::AttentionOptions options;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](std::string name, nn::AttentionOptions o, nn::LatentMode mode, bool tie_up = false,
                       std::int64_t groups = 1) {
    o.latent_mode = mode;
    if (o.nsa) o.nsa->tie_up = tie_up;
    if (o.nsa) o.nsa->num_select_groups = groups;
    all.push_back({std::move(name), o});
  };
  nn::AttentionOptions mla = test::small_mla(), gqa = test::small_gqa();
  add("mla_auto", mla, nn::LatentMode::kAuto);
  add("mla_mha", mla, nn::LatentMode::kMha);
  add("mla_mqa", mla, nn::LatentMode::kMqa);
  add("gqa", gqa, nn::LatentMode::kAuto);
  mla.nsa = gqa.nsa = test::small_nsa();
  add("nsa_mla_auto", mla, nn::LatentMode::kAuto);
  add("nsa_mla_mha", mla, nn::LatentMode::kMha, false, 2);
  add("nsa_mla_mqa", mla, nn::LatentMode::kMqa, false, 2);
  add("nsa_mla_mqa_tied", mla, nn::LatentMode::kMqa, true);
  add("nsa_gqa", gqa, nn::LatentMode::kAuto);
  return all;
}

class AttentionDecode : public ::testing::TestWithParam<Variant> {
 protected:
  AttentionDecode() : attention(GetParam().options), cache(attention.layer->make_cache(kTokens)) {
    x = test::normal_tensor({kTokens, attention.options.hidden_size}, 31);
    expected = attention.forward(x);
  }

  /// Feeds tokens [cache length, end) in one call and compares with the rows of the whole sequence.
  void feed(std::int64_t end) {
    const std::int64_t begin = cache->length();
    nn::Context ctx{attention.stream, 1, end - begin};
    const Tensor y = attention.layer->decode(ctx, x.view().rows(begin, end), *cache);
    EXPECT_EQ(cache->length(), end);
    EXPECT_LT(test::relative_difference(y, expected.view().rows(begin, end)), 1e-12) << "tokens " << begin << " to " << end;
  }

  test::AttentionCase attention;
  std::unique_ptr<nn::AttentionCache> cache;
  Tensor x, expected;
};

TEST_P(AttentionDecode, TokenByToken) {
  for (std::int64_t t = 1; t <= kTokens; ++t) feed(t);
}

TEST_P(AttentionDecode, Prefill) { feed(kTokens); }

TEST_P(AttentionDecode, Chunks) {
  for (const std::int64_t end : {2, 3, 10, 11, 17, 18, 38, 41}) feed(end);
}

TEST_P(AttentionDecode, TakesTokensBack) {
  feed(20);
  for (const std::int64_t back : {1, 4, 9}) {
    // Wrong continuations are written and rejected.
    const std::int64_t kept = cache->length();
    const Tensor wrong = test::normal_tensor({back, attention.options.hidden_size}, 77, 3.0);
    nn::Context ctx{attention.stream, 1, back};
    attention.layer->decode(ctx, wrong, *cache);
    cache->truncate(kept);
    EXPECT_EQ(cache->length(), kept);
    feed(kept + 3);
  }
  cache->truncate(cache->length() - 11);
  for (std::int64_t t = cache->length() + 1; t <= kTokens; ++t) feed(t);
  cache->truncate(0);
  feed(7);
}

TEST_P(AttentionDecode, RefusesMoreThanItHolds) {
  feed(kTokens);
  nn::Context ctx{attention.stream, 1, 1};
  EXPECT_THROW(attention.layer->decode(ctx, x.view().rows(0, 1), *cache), ContractError);
  EXPECT_THROW(cache->truncate(kTokens + 1), ContractError);
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionDecode, ::testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

// The tails of sparse caches move while a long sequence grows; what they drop is never needed again.
TEST(AttentionCache, LongSequenceOutgrowsTheTails) {
  for (nn::AttentionOptions options : {test::small_mla(), test::small_gqa()}) {
    options.nsa = test::small_nsa();
    options.max_positions = 512;
    test::AttentionCase attention(options);
    const std::int64_t tokens = 400;
    const Tensor x = test::normal_tensor({tokens, options.hidden_size}, 3);
    const Tensor expected = attention.forward(x);
    const auto cache = attention.layer->make_cache(tokens);
    std::int64_t begin = 0;
    for (std::int64_t step = 0; begin < tokens; ++step) {
      const std::int64_t end = std::min(tokens, begin + (step % 40 == 7 ? 150 : 1 + step % 3));
      nn::Context ctx{attention.stream, 1, end - begin};
      const Tensor y = attention.layer->decode(ctx, x.view().rows(begin, end), *cache);
      EXPECT_LT(test::relative_difference(y, expected.view().rows(begin, end)), 1e-12) << begin;
      begin = end;
      if (step % 11 == 10) cache->truncate(begin = std::max<std::int64_t>(0, begin - 5));
    }
    EXPECT_THROW(cache->truncate(100), ContractError);
  }
}

TEST(AttentionCache, BytesPerToken) {
  // spec/model.md 3.2 and 9.4: R + dr per token; sparse 1/d more, and the tail.
  nn::AttentionOptions options = test::small_mla();
  test::AttentionCase dense(options);
  nn::Context ctx{dense.stream, 1, 40};
  const Tensor x = test::normal_tensor({40, options.hidden_size}, 3);
  auto cache = dense.layer->make_cache(64);
  EXPECT_EQ(cache->bytes_per_token(), 0.0);
  dense.layer->decode(ctx, x, *cache);
  EXPECT_DOUBLE_EQ(cache->bytes_per_token(), 8.0 * (7 + 4));
  options.nsa = test::small_nsa();
  test::AttentionCase sparse(options);
  cache = sparse.layer->make_cache(64);
  sparse.layer->decode(ctx, x, *cache);
  EXPECT_DOUBLE_EQ(cache->bytes_per_token(), 8.0 * (7 + 4) * (40 + 19 + 40) / 40);
}

}  // namespace
}  // namespace hadal
