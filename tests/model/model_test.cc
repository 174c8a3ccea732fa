// Guards: the gradient of the whole training loss (main, MTP of two depths, balance loss) with respect to every parameter, for MLA and
// GQA, dense and sparse; initial values that do not depend on how parameters are fused; logits that agree with the loss.
#include "model/model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"
#include "tests/support/small_model.h"
#include "tests/support/gradient_check.h"

namespace hadal::model {
namespace {

/// Everything that is trained, as separate terms.
std::vector<double> loss_terms(Model& model, const MicroBatch& m) {
  Stream stream;
  for (nn::MoeLayer* moe : model.moe_layers()) moe->reset_statistics();
  const Losses losses = model.forward_backward(stream, m);
  std::vector<double> terms{losses.main};
  for (const double mtp : losses.mtp) terms.push_back(mtp * m.mtp_weight / static_cast<double>(losses.mtp.size()));
  for (nn::MoeLayer* moe : model.moe_layers()) terms.push_back(*moe->balance_loss().as<double>());
  return terms;
}

class WholeModel : public testing::TestWithParam<std::tuple<AttentionKind, SparseKind>> {};

TEST_P(WholeModel, GradientsAgree) {
  const auto [kind, sparse] = GetParam();
  const ModelOptions options = test::small_model(kind, sparse);
  Model model(options);
  // Seed and step are such that no token's choice of experts lies within reach of a difference.
  test::randomize(model.parameters(), 8, 0.4);
  const MicroBatch m = test::make_micro_batch(options, 2, 13);
  model.hold_selection(true);
  loss_terms(model, m);
  std::vector<Tensor> analytic;
  std::vector<test::GradientPair> pairs;
  for (nn::Parameter* p : model.parameters()) {
    if (!p->options().trainable) continue;
    Tensor copy = Tensor::empty(p->shape(), DType::kF64);
    std::copy_n(p->grad().as<double>(), p->numel(), copy.as<double>());
    analytic.push_back(std::move(copy));
    pairs.push_back({p->name(), p->value(), analytic.back()});
  }
  EXPECT_TRUE(test::gradients_agree(pairs, [&] { return loss_terms(model, m); }, {.step = 2e-4, .max_elements = 12}));
}

INSTANTIATE_TEST_SUITE_P(Forms, WholeModel, testing::Combine(testing::Values(AttentionKind::kMla, AttentionKind::kGqa), testing::Values(SparseKind::kNone, SparseKind::kNsa)));

TEST(Model, InitialValuesDependOnTheLogicalNameAlone) {
  const ModelOptions options = test::small_model(AttentionKind::kMla, SparseKind::kNone);
  Model model(options);
  model.initialize(9);
  const Random random(9, RandomPurpose::kInit, stream_of("model.layers.1.mlp.experts.2.up_proj.weight"));
  for (nn::Parameter* p : model.parameters()) {
    for (const nn::LogicalPart& part : p->parts()) {
      if (part.name != "model.layers.1.mlp.experts.2.up_proj.weight") continue;
      for (std::uint64_t i = 0; i < 5 * 8; ++i) EXPECT_EQ(p->value().as<double>()[part.offset + static_cast<std::int64_t>(i)], 0.3 * random.normal(i));
      return;
    }
  }
  FAIL() << "the parameter is missing";
}

TEST(Model, LogitsAgreeWithTheLoss) {
  const ModelOptions options = test::small_model(AttentionKind::kMla, SparseKind::kNsa);
  Model model(options);
  model.initialize(9);
  const MicroBatch m = test::make_micro_batch(options, 2, 13);
  Stream stream;
  const Model::Logits logits = model.logits(stream, m.tokens.view().reshape({2, 13}));
  SharedTables tables(options, {});
  Stage stage(options, whole_model(options.shape), {}, tables);
  for (nn::Parameter* parameter : stage.parameters()) parameter->initialize(9);
  LossTable losses(1, options.shape.mtp.depth, kCpu);
  Stage::Outcome e;
  e.losses = losses.row(0);
  stage.forward(stream, m, {}, true, nullptr, e);
  const std::int64_t vocab = options.shape.vocab_size;
  for (std::int64_t t = 0; t < 26; ++t) {
    const std::int32_t target = m.main.targets.as<std::int32_t>()[t];
    if (target < 0) continue;
    const double* row = logits.main.as<double>() + t * vocab;
    double sum = 0;
    for (std::int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v]);
    EXPECT_NEAR(e.token_loss.as<double>()[t], std::log(sum) - row[target], 1e-12);
  }
}

TEST(Model, NoTokenSeesTheFuture) {
  for (const auto kind : {AttentionKind::kMla, AttentionKind::kGqa}) {
    const ModelOptions options = test::small_model(kind, SparseKind::kNsa);
    Model model(options);
    test::randomize(model.parameters(), 5, 0.4);
    MicroBatch m = test::make_micro_batch(options, 1, 17);
    Stream stream;
    const Model::Logits before = model.logits(stream, m.tokens.view().reshape({1, 17}));
    m.tokens.as<std::int32_t>()[12] = (m.tokens.as<std::int32_t>()[12] + 1) % 11;
    const Model::Logits after = model.logits(stream, m.tokens.view().reshape({1, 17}));
    for (std::int64_t i = 0; i < 12 * 11; ++i) EXPECT_EQ(before.main.as<double>()[i], after.main.as<double>()[i]) << "element " << i;
    EXPECT_GT(test::relative_difference(before.main, after.main), 1e-6);
  }
}

}  // namespace
}  // namespace hadal::model
