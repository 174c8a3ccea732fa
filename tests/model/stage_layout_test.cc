// How a model is cut into stages: every piece once, in order, balanced; written layouts as written; refusals that say why.
#include "model/stage_layout.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace hadal::model {
namespace {

ModelSection small_model() {
  ModelSection model;
  model.num_layers = 6;
  model.moe.num_experts = 4;
  model.mtp.depth = 1;
  return model;
}

TEST(StageLayout, EveryCutHoldsEveryPieceOnce) {
  const ModelSection model = small_model();
  for (std::int64_t stages = 1; stages <= 9; ++stages) {
    const std::vector<StageContent> layout = stage_layout(model, {}, stages);
    ASSERT_EQ(static_cast<std::int64_t>(layout.size()), stages);
    std::int64_t layers = 0, heads = 0, modules = 0;
    for (std::size_t s = 0; s < layout.size(); ++s) {
      EXPECT_EQ(layout[s].embedding, s == 0);
      EXPECT_EQ(layout[s].first_layer, layers);
      EXPECT_EQ(layout[s].first_mtp, modules);
      layers += layout[s].num_layers;
      heads += layout[s].head;
      modules += layout[s].num_mtp;
      EXPECT_FALSE(layout[s].describe().empty());
    }
    EXPECT_EQ(layers, model.num_layers);
    EXPECT_EQ(heads, 1);
    EXPECT_EQ(modules, model.mtp.depth);
  }
  EXPECT_THROW(stage_layout(model, {}, 10), UserError);
}

TEST(StageLayout, ABigHeadLeavesFewerLayersToItsStage) {
  ModelSection model = small_model();
  model.mtp.depth = 0;
  model.vocab_size = 64;
  const auto light = stage_layout(model, {}, 2);
  model.vocab_size = 1 << 16;
  const auto heavy = stage_layout(model, {}, 2);
  EXPECT_GT(light[1].num_layers, heavy[1].num_layers);
}

StageSection section(std::int64_t layers, bool head, std::int64_t mtp) {
  StageSection s;
  s.layers = layers;
  s.head = head;
  s.mtp = mtp;
  return s;
}

TEST(StageLayout, WrittenStagesAreTakenAsTheyAre) {
  ParallelSection parallel;
  parallel.stages = {section(0, false, 0), section(5, false, 0), section(1, true, 0), section(0, false, 1)};
  const auto layout = stage_layout(small_model(), parallel, 4);
  EXPECT_EQ(layout[0].describe(), "embedding");
  EXPECT_EQ(layout[1].describe(), "layers 0-4");
  EXPECT_EQ(layout[2].describe(), "layer 5, head");
  EXPECT_EQ(layout[3].describe(), "mtp 1");
  EXPECT_TRUE(layout[3].needs_embedding() && layout[3].needs_head());
}

void expect_refused(const std::vector<StageSection>& stages, std::int64_t count, const char* why) {
  ParallelSection parallel;
  parallel.stages = stages;
  try {
    stage_layout(small_model(), parallel, count);
    ADD_FAILURE() << "expected: " << why;
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
  }
}

TEST(StageLayout, WrittenStagesThatDoNotAddUpAreRefused) {
  expect_refused({section(6, true, 1)}, 2, "describes 1 stages");
  expect_refused({section(3, false, 0), section(2, true, 1)}, 2, "5 layers in all");
  expect_refused({section(3, true, 1), section(3, false, 0)}, 2, "after the stage with the head");
  expect_refused({section(3, false, 1), section(3, true, 0)}, 2, "before the head");
  expect_refused({section(3, false, 0), section(3, false, 0)}, 2, "no stage has the head");
  expect_refused({section(6, true, 0), section(0, true, 1)}, 2, "a second head");
  expect_refused({section(6, true, 1), section(0, false, 0)}, 2, "is empty");
  expect_refused({section(3, false, 0), section(3, true, 0)}, 2, "0 MTP modules in all");
}

}  // namespace
}  // namespace hadal::model
