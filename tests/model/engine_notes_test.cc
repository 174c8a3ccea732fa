// Which engine takes which shape (spec/interop.md 5).
#include "model/engine_notes.h"

#include <gtest/gtest.h>

#include <string>

#include "config/load.h"

namespace hadal::model {
namespace {

ModelSection preset(const std::string& name) {
  return load_config(std::string(HADAL_SOURCE_DIR) + "/configs/model/" + name + ".yaml").config.model;
}

EngineNote note(const ModelSection& model, std::string_view engine) {
  for (EngineNote& candidate : engine_notes(model)) {
    if (candidate.engine == engine) return candidate;
  }
  ADD_FAILURE() << engine;
  return {};
}

TEST(EngineNotes, SmallGoesEverywhere) {
  for (const EngineNote& engine : engine_notes(preset("small"))) EXPECT_TRUE(engine.ok) << engine.engine << ": " << engine.reason;
  EXPECT_EQ(note(preset("small"), "vllm").reason, "");
  EXPECT_EQ(note(preset("small"), "llama.cpp").reason, "");
}

TEST(EngineNotes, PublishedShapesGoEverywhere) {
  for (const char* name : {"deepseek_v3", "deepseek_v2", "deepseek_v2_lite"}) {
    for (const EngineNote& engine : engine_notes(preset(name))) {
      EXPECT_TRUE(engine.ok && engine.reason.find("only with") == std::string::npos)
          << name << " " << engine.engine << ": " << engine.reason;
    }
  }
  EXPECT_EQ(export_model_type(preset("deepseek_v3")), "deepseek_v3");
  EXPECT_EQ(export_model_type(preset("deepseek_v2_lite")), "deepseek_v2");
}

TEST(EngineNotes, SparseAttentionIsOurOwnType) {
  EXPECT_EQ(export_model_type(preset("tiny")), "hadal_nsa");
  EXPECT_TRUE(note(preset("tiny"), "transformers").ok);
  EXPECT_FALSE(note(preset("nsa_27b"), "vllm").ok);
}

TEST(EngineNotes, EachRuleIsNamed) {
  ModelSection model = preset("small");
  model.attention.kv_lora_rank = 128;
  EXPECT_NE(note(model, "vllm").reason.find("192, not 576 or 320"), std::string::npos);
  model = preset("small");
  model.attention.q_lora_rank = 0;
  EXPECT_FALSE(note(model, "llama.cpp").ok);
  model.num_layers = 27;
  EXPECT_TRUE(note(model, "llama.cpp").ok);
  model = preset("small");
  model.moe.num_experts = 320;
  EXPECT_FALSE(note(model, "llama.cpp").ok);
  EXPECT_TRUE(note(model, "transformers").ok);
  model = preset("small");
  model.moe.num_shared = 0;
  EXPECT_FALSE(note(model, "transformers").ok);
  model = preset("small");
  model.rms_norm_eps = 1e-5;
  EXPECT_FALSE(note(model, "sglang").ok);
  model = preset("small");
  model.moe.score = RouterScore::kSoftmax;
  EXPECT_EQ(export_model_type(model), "");
  EXPECT_FALSE(note(model, "transformers").ok);
}

}  // namespace
}  // namespace hadal::model
