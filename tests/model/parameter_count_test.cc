// Parameter counts of the presets against spec/model.md 1, of small shapes against counts made by hand, and model flops
// against the definition of spec/cli.md.
#include "model/parameter_count.h"

#include <gtest/gtest.h>

#include <string>

#include "config/load.h"
#include "core/error.h"

namespace hadal::model {
namespace {

ModelSection preset(const std::string& name) {
  return load_config(std::string(HADAL_SOURCE_DIR) + "/configs/" + name + ".yaml").config.model;
}

ParameterCount count(const std::string& name) { return count_parameters(preset(name)); }

TEST(ParameterCount, DeepseekV3) {
  const ParameterCount v3 = count("model/deepseek_v3");
  EXPECT_NEAR(static_cast<double>(v3.total), 671.03e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(v3.active), 37.55e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(v3.mtp), 11.61e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(v3.attention) / 61, 187.1e6, 0.05e6);
  EXPECT_EQ(v3.total_with_mtp, v3.total + v3.mtp);
}

TEST(ParameterCount, DeepseekV2) {
  const ParameterCount v2 = count("model/deepseek_v2");
  EXPECT_NEAR(static_cast<double>(v2.total), 235.74e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(v2.active), 21.38e9, 0.005e9);
  EXPECT_EQ(v2.mtp, 0);
}

TEST(ParameterCount, DeepseekV2Lite) {
  const ParameterCount lite = count("model/deepseek_v2_lite");
  EXPECT_NEAR(static_cast<double>(lite.total), 15.706e9, 0.0005e9);
  EXPECT_NEAR(static_cast<double>(lite.active), 2.66e9, 0.005e9);
}

// Our own arithmetic, written out: the paper states the total only.
TEST(ParameterCount, Nsa27b) {
  const ParameterCount nsa = count("model/nsa_27b");
  const std::int64_t d = 2560, layers = 30;
  const std::int64_t query = 64 * 192 * d, kv = 4 * (192 + 128) * d, output = d * 64 * 128;
  EXPECT_EQ(nsa.attention, layers * (query + kv + output));
  const std::int64_t gate = 3 * 64 * d + 3 * 64, phi = 192 * 192 + 32 * 192 + 128 * 128 + 32 * 128;
  EXPECT_EQ(nsa.nsa, layers * (2 * kv + gate + phi));
  EXPECT_EQ(nsa.routed_experts, 29 * 72 * 3 * d * 1472);
  EXPECT_EQ(nsa.shared_experts, 29 * 2 * 3 * d * 1472);
  EXPECT_EQ(nsa.router, 29 * 72 * d);
  EXPECT_EQ(nsa.dense_ffn, 3 * d * 11776);
  EXPECT_EQ(nsa.norms, layers * 2 * d + d);
  EXPECT_EQ(nsa.embedding, 129280 * d);
  EXPECT_NEAR(static_cast<double>(nsa.total), 27e9, 0.5e9);
}

// Every tensor of spec/interop.md 7.3, MLA form, untied and tied.
TEST(ParameterCount, NsaOverMla) {
  ModelSection model = preset("model/tiny");
  const std::int64_t h = 128, heads = 4, rkv = 64, dr = 16, l = 16, kv_b = heads * (32 + 32) * rkv;
  const std::int64_t compress = rkv * rkv + dr * rkv + l * rkv + l * dr, gate = 3 * heads * h + 3 * heads;
  EXPECT_EQ(count_parameters(model).nsa, 4 * (2 * kv_b + compress + gate));
  model.attention.nsa.tie_up = true;
  EXPECT_EQ(count_parameters(model).nsa, 4 * (compress + gate));
  model.attention.dense_layers = {0, 3};
  EXPECT_EQ(count_parameters(model).nsa, 2 * (compress + gate));
  EXPECT_EQ(count_parameters(model).norms, 4 * (2 * h + rkv) + 2 * rkv + h);
}

TEST(ParameterCount, SmallPresets) {
  EXPECT_NEAR(static_cast<double>(count("model/tiny").total_with_mtp), 2e6, 0.5e6);
  EXPECT_NEAR(static_cast<double>(count("model/small").total_with_mtp), 114e6, 1e6);
  EXPECT_NEAR(static_cast<double>(count("model/small").active), 54e6, 1e6);
}

TEST(ParameterCount, NoExpertsMeansEveryLayerDense) {
  ModelSection model;
  model.moe.num_experts = 0;
  const ParameterCount dense = count_parameters(model);
  EXPECT_EQ(dense.dense_ffn, model.num_layers * 3 * model.hidden_size * model.intermediate_size);
  EXPECT_EQ(dense.routed_experts + dense.shared_experts + dense.router, 0);
  EXPECT_EQ(dense.active, dense.total);
}

TEST(ParameterCount, RefusesWhatDoesNotFit) {
  ModelSection model;
  model.moe.num_experts = 65536;
  model.moe.intermediate_size = 1 << 20;
  model.hidden_size = 1 << 20;
  model.num_layers = 4096;
  EXPECT_THROW(count_parameters(model), UserError);
}

// The formula of the PyTorch peer (num_active, flops_per_token) for the bench's shape, number by number.
TEST(ModelFlops, BenchShape) {
  const ModelSection model = preset("bench/cpu_small");
  const std::int64_t qk = 48, attention = 256 * 128 + 128 * 8 * qk + 256 * 80 + 64 * 8 * 64 + 8 * 32 * 256;
  const std::int64_t moe = 3 * (3 * 256 * 256) + 256 * 8;
  const std::int64_t active = 4 * attention + 3 * moe + 3 * 256 * 768, head = 256 * 8192;
  EXPECT_EQ(multiplied_per_token(model), active + head);
  EXPECT_DOUBLE_EQ(model_flops_per_token(model, 512), 6.0 * static_cast<double>(active + head) + 3.0 * 4 * 8 * 512 * (48 + 32));
}

// Sparse attention with every token in reach visits t + 1 keys twice (window, selection) and the compressed blocks.
TEST(ModelFlops, SparseKeysAreCountedPerBranch) {
  ModelSection model = preset("model/tiny");
  model.mtp.depth = 0;
  const double dense = [&] {
    ModelSection other = model;
    other.attention.sparse = SparseKind::kNone;
    return model_flops_per_token(other, 8) - 6.0 * static_cast<double>(multiplied_per_token(other));
  }();
  const double sparse = model_flops_per_token(model, 8) - 6.0 * static_cast<double>(multiplied_per_token(model));
  // 8 tokens: no compressed block, sum of t + 1 = 36 in two branches, against 8 * 8 / 2 = 32.
  EXPECT_DOUBLE_EQ(sparse / dense, 2.0 * 36 / 32);
}

}  // namespace
}  // namespace hadal::model
