// Files, includes, overrides and their precedence; provenance.
#include "config/load.h"

#include <gtest/gtest.h>

#include "config/write.h"
#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

TEST(LoadConfig, EmptyTextIsAllDefaults) {
  const LoadedConfig loaded = load_config_text("", "x.yaml");
  EXPECT_EQ(to_yaml(loaded.config), to_yaml(Config{}));
  EXPECT_TRUE(loaded.origins.empty());
  EXPECT_TRUE(loaded.inert.empty());
}

TEST(LoadConfig, ReadsEveryKind) {
  const LoadedConfig loaded = load_config_text(
      "run: {name: 'a # b', seed: 1_000}\n"
      "model:\n"
      "  attention: {kind: gqa, head_dim: 64, num_heads: 4, num_kv_heads: 2, sparse: nsa, dense_layers: [0, 1]}\n"
      "  moe: {num_experts: 8, normalize_topk: false}\n"
      "data:\n"
      "  sources:\n"
      "    - path: a.h5\n"
      "      weight: 0.3\n"
      "    - {path: \"b.h5\"}\n"
      "optim: {lr: 1e-3, schedule: {kind: step, milestones: [.5, 0.75]}}\n"
      "train: {steps: 1e9}\n",
      "x.yaml");
  const Config& c = loaded.config;
  EXPECT_EQ(c.run.name, "a # b");
  EXPECT_EQ(c.run.seed, 1000);
  EXPECT_EQ(c.model.attention.kind, AttentionKind::kGqa);
  EXPECT_EQ(c.model.attention.dense_layers, (std::vector<std::int64_t>{0, 1}));
  EXPECT_FALSE(c.model.moe.normalize_topk);
  ASSERT_EQ(c.data.sources.size(), 2u);
  EXPECT_EQ(c.data.sources[0].weight, 0.3);
  EXPECT_EQ(c.data.sources[1].path, "b.h5");
  EXPECT_EQ(c.data.sources[1].weight, 1.0);
  EXPECT_EQ(c.optim.lr, 1e-3);
  EXPECT_EQ(c.optim.schedule.milestones, (std::vector<double>{0.5, 0.75}));
  EXPECT_EQ(c.train.steps, 1000000000);
  EXPECT_EQ(loaded.origins.at("data.sources.0.weight"), "x.yaml:8:15");
  EXPECT_EQ(loaded.origins.at("optim.lr"), "x.yaml:10:13");
}

TEST(LoadConfig, PrecedenceIsDefaultsIncludesFileCommandLine) {
  const test::TempDir dir;
  std::filesystem::create_directory(dir / "sub");
  write_file_atomically(dir / "sub/first.yaml", "optim: {lr: 0.1, beta1: 0.5, beta2: 0.6, clip_norm: 2}\n");
  write_file_atomically(dir / "sub/second.yaml", "include: [third.yaml]\noptim: {beta1: 0.7}\n");
  write_file_atomically(dir / "sub/third.yaml", "optim: {beta1: 0.8, eps: 0.25}\n");
  write_file_atomically(dir / "run.yaml", "include: [sub/first.yaml, sub/second.yaml]\noptim: {beta2: 0.9, weight_decay: 0.3}\n");
  const LoadedConfig loaded = load_config(dir / "run.yaml", {"optim.weight_decay=0.4", "optim.weight_decay=0.5"});
  EXPECT_EQ(loaded.config.optim.lr, 0.1);
  EXPECT_EQ(loaded.config.optim.beta1, 0.7);
  EXPECT_EQ(loaded.config.optim.beta2, 0.9);
  EXPECT_EQ(loaded.config.optim.eps, 0.25);
  EXPECT_EQ(loaded.config.optim.weight_decay, 0.5);
  EXPECT_EQ(loaded.config.optim.ema_decay, 0.0);
  EXPECT_EQ(loaded.origins.at("optim.lr"), (dir / "sub/first.yaml").string() + ":1:13");
  EXPECT_EQ(loaded.origins.at("optim.eps"), (dir / "sub/third.yaml").string() + ":1:26");
  EXPECT_EQ(loaded.origins.at("optim.weight_decay"), "command line: optim.weight_decay=0.5");
  EXPECT_FALSE(loaded.origins.contains("optim.ema_decay"));
}

TEST(LoadConfig, ListsAreReplacedNotMerged) {
  const test::TempDir dir;
  write_file_atomically(dir / "base.yaml",
                        "data: {sources: [{path: a, weight: 7}, {path: b}], validation_sources: [{path: v}]}\n");
  write_file_atomically(dir / "run.yaml", "include: [base.yaml]\ndata: {sources: [{path: c}]}\n");
  const LoadedConfig loaded = load_config(dir / "run.yaml");
  ASSERT_EQ(loaded.config.data.sources.size(), 1u);
  EXPECT_EQ(loaded.config.data.sources[0].path, "c");
  EXPECT_EQ(loaded.config.data.sources[0].weight, 1.0);
  EXPECT_EQ(loaded.config.data.validation_sources.size(), 1u);
  EXPECT_FALSE(loaded.origins.contains("data.sources.1.path"));
}

TEST(LoadConfig, OverridesReachListsAndSections) {
  const std::string text = "data: {sources: [{path: a}, {path: b}]}\n";
  const Config c = load_config_text(text, "x.yaml",
                                    {"data.sources.1.weight=0.7", "optim.schedule.milestones=[0.25, 0.5]", "run.name=a: b=c",
                                     "optim.schedule.milestones.1=0.75", "optim.schedule.kind=step",
                                     "data.validation_sources=[{path: v}]", "train={steps: 7, log_interval: 3}"})
                       .config;
  EXPECT_EQ(c.data.sources[0].weight, 1.0);
  EXPECT_EQ(c.data.sources[1].weight, 0.7);
  EXPECT_EQ(c.optim.schedule.milestones, (std::vector<double>{0.25, 0.75}));
  EXPECT_EQ(c.run.name, "a: b=c");
  EXPECT_EQ(c.data.validation_sources.at(0).path, "v");
  EXPECT_EQ(c.train.steps, 7);
}

TEST(LoadConfig, MissingFileIsAUserError) { EXPECT_THROW(load_config("/nonexistent/x.yaml"), UserError); }

}  // namespace
}  // namespace hadal
