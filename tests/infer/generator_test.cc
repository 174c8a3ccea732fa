// Guards: decoding token by token equals the whole sequence's logits; speculation gives the same greedy text and the same
// distribution; top-k, top-p and temperature; the same seed gives the same text.
#include "infer/generator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/support/gradient_check.h"
#include "tests/support/small_model.h"

namespace hadal::infer {
namespace {

/// One MTP module, and positions for some text.
model::ModelOptions small_model(AttentionKind kind, SparseKind sparse) {
  model::ModelOptions o = test::small_model(kind, sparse);
  o.shape.vocab_size = 13;
  o.shape.max_positions = 64;
  o.shape.mtp.depth = 1;
  return o;
}

class Decode : public testing::TestWithParam<std::tuple<AttentionKind, SparseKind>> {};

TEST_P(Decode, EqualsPrefill) {
  const auto [kind, sparse] = GetParam();
  model::Model model(small_model(kind, sparse));
  test::randomize(model.parameters(), 5, 0.5);
  constexpr std::int64_t kLength = 21;
  Tensor tokens = Tensor::empty({1, kLength}, DType::kI32);
  for (std::int64_t i = 0; i < kLength; ++i) tokens.as<std::int32_t>()[i] = static_cast<std::int32_t>((i * i * 7 + 3) % 13);
  Stream stream;
  const model::Model::Logits whole = model.logits(stream, tokens);
  auto caches = model.make_caches(kLength);
  const ConstView ids = static_cast<ConstView>(tokens).reshape({kLength});
  // A prefill of 6, then one by one, then the last 4 at once.
  std::int64_t at = 0;
  for (const std::int64_t count : {6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4}) {
    const Tensor logits = model.head(stream, model.decode(stream, ids.rows(at, at + count), caches));
    const ConstView expected = static_cast<ConstView>(whole.main).rows(at, at + count);
    EXPECT_LT(test::relative_difference(logits, expected), 1e-11) << "tokens " << at << " .. " << at + count - 1;
    at += count;
  }
  EXPECT_EQ(at, kLength);
}

TEST_P(Decode, MtpEqualsPrefill) {
  const auto [kind, sparse] = GetParam();
  model::Model model(small_model(kind, sparse));
  test::randomize(model.parameters(), 5, 0.5);
  constexpr std::int64_t kLength = 15;
  Tensor tokens = Tensor::empty({1, kLength}, DType::kI32);
  for (std::int64_t i = 0; i < kLength; ++i) tokens.as<std::int32_t>()[i] = static_cast<std::int32_t>((i * 5 + 1) % 13);
  Stream stream;
  const model::Model::Logits whole = model.logits(stream, tokens);
  auto caches = model.make_caches(kLength);
  auto mtp_cache = model.make_mtp_cache(kLength);
  const ConstView ids = static_cast<ConstView>(tokens).reshape({kLength});
  const Tensor hidden = model.decode(stream, ids, caches);
  for (std::int64_t i = 0; i + 1 < kLength; ++i) {
    const Tensor out = model.decode_mtp(stream, ids.rows(i + 1, i + 2), hidden.view().rows(i, i + 1), *mtp_cache);
    const Tensor logits = model.head(stream, out);
    EXPECT_LT(test::relative_difference(logits, static_cast<ConstView>(whole.mtp[0]).rows(i, i + 1)), 1e-11) << "position " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, Decode, testing::Combine(testing::Values(AttentionKind::kMla, AttentionKind::kGqa), testing::Values(SparseKind::kNone, SparseKind::kNsa)));

std::vector<std::int32_t> text(model::Model& model, const GenerateOptions& options) {
  const std::int32_t prompt[] = {3, 1, 4};
  return Generator(model).generate(prompt, options, [](std::int32_t) { return true; }).tokens;
}

TEST(Generate, SpeculationKeepsTheGreedyText) {
  for (const auto sparse : {SparseKind::kNone, SparseKind::kNsa}) {
    model::Model model(small_model(AttentionKind::kMla, sparse));
    test::randomize(model.parameters(), 6, 0.5);
    GenerateOptions options{.sampling = {.temperature = 0}, .max_tokens = 40};
    const auto plain = text(model, options);
    options.speculate = true;
    EXPECT_EQ(text(model, options), plain);
    EXPECT_EQ(plain.size(), 40u);
  }
}

TEST(Generate, SpeculationKeepsTheDistribution) {
  model::Model model(small_model(AttentionKind::kMla, SparseKind::kNone));
  test::randomize(model.parameters(), 6, 0.5);
  constexpr int kDraws = 4000;
  std::map<std::vector<std::int32_t>, double> plain, drafted;
  for (int seed = 0; seed < kDraws; ++seed) {
    GenerateOptions options{.sampling = {.temperature = 1.0, .top_k = 3, .seed = static_cast<std::uint64_t>(seed)}, .max_tokens = 3};
    plain[text(model, options)] += 1.0 / kDraws;
    options.speculate = true;
    options.sampling.seed += kDraws;
    drafted[text(model, options)] += 1.0 / kDraws;
  }
  double distance = 0;
  for (const auto& [key, p] : plain) distance += std::abs(p - drafted[key]);
  for (const auto& [key, p] : drafted) distance += plain.contains(key) ? 0 : p;
  // 27 texts: two samples of 4000 from one distribution differ by about sqrt(27 * 2 / 4000 * 2 / pi) = 0.09 in this sum.
  EXPECT_LT(distance, 0.15);
}

TEST(Sampling, CutsAndScales) {
  Tensor logits = Tensor::empty({1, 4}, DType::kF32);
  const float values[] = {0.0f, 2.0f, 1.0f, -1.0f};
  std::copy(std::begin(values), std::end(values), logits.as<float>());
  const auto greedy = probabilities(logits, {.temperature = 0});
  EXPECT_EQ(greedy, (std::vector<double>{0, 1, 0, 0}));
  const auto two = probabilities(logits, {.temperature = 0.5, .top_k = 2});
  EXPECT_NEAR(two[1], 1 / (1 + std::exp(-2.0)), 1e-12);
  EXPECT_EQ(two[0], 0.0);
  const auto nucleus = probabilities(logits, {.top_p = 0.7});  // e^2 of the total e^2 + e + 1 + 1/e is 0.64: two are needed
  EXPECT_EQ(nucleus[0], 0.0);
  EXPECT_NEAR(nucleus[1] + nucleus[2], 1.0, 1e-12);
}

TEST(Generate, TooLongIsRefusedBeforeAnythingRuns) {
  model::Model model(small_model(AttentionKind::kMla, SparseKind::kNone));
  model.initialize(3);
  EXPECT_THROW(text(model, {.sampling = {}, .max_tokens = 62}), UserError);
  for (const bool speculate : {false, true}) EXPECT_EQ(text(model, {.sampling = {}, .max_tokens = 61, .speculate = speculate}).size(), 61u);
}

}  // namespace
}  // namespace hadal::infer
