// Guards: ${env:NAME} and ${env:NAME:-default} in values, and nowhere else; every mistake has the reference's own place.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/write.h"
#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

class Environment : public testing::Test {
 protected:
  Environment() {
    setenv("HADAL_TEST_DIR", "/data/a b", 1);
    setenv("HADAL_TEST_STEPS", "12_000", 1);
    setenv("HADAL_TEST_KIND", "gqa", 1);
    setenv("HADAL_TEST_EMPTY", "", 1);
    unsetenv("HADAL_TEST_UNSET");
  }
};

std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    load_config_text(text, "x.yaml", overrides);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

TEST_F(Environment, ReplacesReferencesInValuesOfEveryKind) {
  const LoadedConfig loaded = load_config_text(
      "run:\n"
      "  dir: ${env:HADAL_TEST_DIR}/runs/${env:HADAL_TEST_KIND}-${env:HADAL_TEST_UNSET:-one}\n"
      "  name: \"${env:HADAL_TEST_EMPTY}\"\n"
      "train: {steps: \"${env:HADAL_TEST_STEPS}\", micro_batch: '${env:HADAL_TEST_EMPTY:-4}'}\n"
      "model:\n"
      "  attention:\n"
      "    kind: ${env:HADAL_TEST_KIND}\n"
      "  moe: {normalize_topk: \"${env:HADAL_TEST_UNSET:-false}\"}\n"
      "data:\n"
      "  sources:\n"
      "    - path: ${env:HADAL_TEST_DIR}\n"
      "      weight: ${env:HADAL_TEST_UNSET:-0.5}\n",
      "x.yaml");
  const Config& c = loaded.config;
  EXPECT_EQ(c.run.dir, "/data/a b/runs/gqa-one");
  EXPECT_EQ(c.run.name, "");
  EXPECT_EQ(c.train.steps, 12000);
  EXPECT_EQ(c.train.micro_batch, 4);
  EXPECT_EQ(c.model.attention.kind, AttentionKind::kGqa);
  EXPECT_FALSE(c.model.moe.normalize_topk);
  EXPECT_EQ(c.data.sources.at(0).path, "/data/a b");
  EXPECT_EQ(c.data.sources.at(0).weight, 0.5);
  EXPECT_EQ(loaded.origins.at("run.dir"), "x.yaml:2:8");
  // What a run writes down no longer asks the environment.
  EXPECT_EQ(to_yaml(c).find("${"), std::string::npos);
}

TEST_F(Environment, ReachesOverridesAndIncludes) {
  const test::TempDir dir;
  write_file_atomically(dir / "base_gqa.yaml", "optim: {lr: 0.25}\n");
  write_file_atomically(dir / "run.yaml", "include: [\"base_${env:HADAL_TEST_KIND}.yaml\"]\n");
  const Config c = load_config(dir / "run.yaml", {"train.steps=${env:HADAL_TEST_STEPS}", "run.name=${env:HADAL_TEST_DIR}!",
                                                  "optim.schedule.milestones=[0.25, \"${env:HADAL_TEST_UNSET:-0.5}\"]"})
                       .config;
  EXPECT_EQ(c.optim.lr, 0.25);
  EXPECT_EQ(c.train.steps, 12000);
  EXPECT_EQ(c.run.name, "/data/a b!");
  EXPECT_EQ(c.optim.schedule.milestones, (std::vector<double>{0.25, 0.5}));
}

TEST_F(Environment, UnsetVariablesAreToldAllAtOnceWithTheirPlace) {
  const std::string message = refusal(
      "run:\n"
      "  dir: /a/${env:HADAL_TEST_UNSET}/b\n"
      "data: {tokenizer: \"x/${env:HADAL_TEST_UNSET}\"}\n");
  EXPECT_NE(message.find("x.yaml:2:11: ${env:HADAL_TEST_UNSET}: the environment has no HADAL_TEST_UNSET; set it, or give a default: "
                         "${env:HADAL_TEST_UNSET:-...}\n"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("x.yaml:3:22: ${env:HADAL_TEST_UNSET}: the environment has no"), std::string::npos) << message;
  EXPECT_NE(refusal("", {"run.dir=${env:HADAL_TEST_UNSET}"}).find("command line: run.dir=${env:HADAL_TEST_UNSET}"), std::string::npos);
}

TEST_F(Environment, WhatItExpandsToIsCheckedLikeAnyValue) {
  EXPECT_TRUE(refusal("train:\n  steps: ${env:HADAL_TEST_KIND}\n").starts_with("x.yaml:2:10: train.steps: gqa is not an integer"));
  EXPECT_TRUE(refusal("train: {steps: \"1${env:HADAL_TEST_STEPS}\"}\n").starts_with("x.yaml:1:16: train.steps: \"112_000\" is text"));
  EXPECT_TRUE(refusal("train:\n  steps: ${env:HADAL_TEST_EMPTY}\n").starts_with("x.yaml:2:10: train.steps:"));
}

TEST_F(Environment, OtherFormsAreRefused) {
  EXPECT_TRUE(refusal("run:\n  dir: ${HOME}/a\n").starts_with("x.yaml:2:8: ${HOME}: is not read; a variable of the environment is ${env:NAME}"));
  EXPECT_TRUE(refusal("run:\n  dir: a${env:HOME\n").starts_with("x.yaml:2:9: ${env:HOME: has no closing }"));
  EXPECT_TRUE(refusal("run:\n  dir: ${env:}\n").starts_with("x.yaml:2:8: ${env:}: the name of a variable is"));
  EXPECT_TRUE(refusal("run:\n  dir: ${env:1A}\n").starts_with("x.yaml:2:8: ${env:1A}: the name of a variable is"));
  EXPECT_TRUE(refusal("run:\n  dir: ${env:A-B}\n").starts_with("x.yaml:2:8: ${env:A-B}: the name of a variable is"));
  EXPECT_NE(refusal("run:\n  dir: ${env:HADAL_TEST_UNSET:-${env:HADAL_TEST_DIR}}\n").find("not expanded twice"), std::string::npos);
  setenv("HADAL_TEST_KIND", "${env:HADAL_TEST_DIR}", 1);
  EXPECT_NE(refusal("run:\n  dir: ${env:HADAL_TEST_KIND}\n").find("not expanded twice"), std::string::npos);
  EXPECT_EQ(load_config_text("run:\n  dir: $5 {a} $ $\n", "x.yaml").config.run.dir, "$5 {a} $ $");
}

TEST_F(Environment, AResolvedConfigurationReachesNeitherItNorOtherFiles) {
  const test::TempDir dir;
  write_file_atomically(dir / "other.yaml", "run: {seed: 5}\n");
  const std::string name = (dir / "manifest.json").string();
  EXPECT_EQ(load_resolved_config(to_yaml(load_config_text("run: {seed: 7}\n", "x.yaml").config), name).run.seed, 7);
  for (const char* text : {"run: {dir: \"${env:HADAL_TEST_DIR}\"}\n", "run:\n  dir: ${env:HADAL_TEST_UNSET:-a}\n", "include: [other.yaml]\n",
                           "\"include\": [other.yaml]\n", "{include: [other.yaml]}\n"}) {
    try {
      load_resolved_config(text, name);
      ADD_FAILURE() << text << " was taken";
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("a resolved configuration"), std::string::npos) << error.what();
    }
  }
}

TEST_F(Environment, KeysAreNotExpanded) {
  EXPECT_NE(refusal("\"${env:HADAL_TEST_KIND}\": {}\n").find("x.yaml:1:1: ${env:HADAL_TEST_KIND}: unknown key"), std::string::npos);
  EXPECT_NE(refusal("", {"run.${env:HADAL_TEST_KIND}=1"}).find("run.${env:HADAL_TEST_KIND}: unknown key"), std::string::npos);
}

}  // namespace
}  // namespace hadal
