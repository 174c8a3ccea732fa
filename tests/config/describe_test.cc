// Schema, reference page and explain know every key; every key has help and a default.
#include "config/describe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/binding.h"
#include "config/inert.h"
#include "core/error.h"

namespace hadal::config {
namespace {

void collect(const Fields& fields, const std::string& prefix, std::vector<const Field*>& found, std::vector<std::string>& paths) {
  for (const Field& field : fields) {
    found.push_back(&field);
    paths.push_back(join_path(prefix, field.name));
    const std::string path = paths.back();
    collect(field.children, path, found, paths);
  }
}

TEST(Describe, EveryKeyHasHelpAndIsDescribed) {
  Config defaults;
  const Fields fields = bind(defaults);
  std::vector<const Field*> found;
  std::vector<std::string> paths;
  collect(fields, "", found, paths);
  EXPECT_GT(paths.size(), 90u);
  const std::string page = markdown_reference();
  const nlohmann::json schema = nlohmann::json::parse(json_schema());
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const Field& field = *found[i];
    SCOPED_TRACE(paths[i]);
    EXPECT_GE(field.help.size(), 4u);
    EXPECT_NE(page.find("`" + paths[i] + "`"), std::string::npos);
    std::string text = explain(paths[i]);
    EXPECT_NE(text.find(field.help), std::string::npos);
    // The schema's node at the path.
    const nlohmann::json* node = &schema;
    for (std::size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
      end = paths[i].find('.', begin);
      node = &node->at("properties").at(paths[i].substr(begin, end - begin));
    }
    EXPECT_EQ(node->at("description"), std::string(field.help));
    EXPECT_TRUE(field.is_section() ? node->at("additionalProperties") == false : node->contains("type"));
    EXPECT_EQ(node->contains("default"), !field.is_list() && !field.is_section());
  }
  EXPECT_EQ(schema["properties"]["include"]["type"], "array");
  EXPECT_EQ(schema["properties"]["train"]["properties"]["steps"]["minimum"], 1);
  EXPECT_EQ(schema["properties"]["data"]["properties"]["sources"]["items"]["properties"]["weight"]["type"], "number");
}

TEST(Describe, ExplainReachesListElementsAndRefusesUnknownKeys) {
  EXPECT_NE(explain("data.sources.0.weight").find("share of this source"), std::string::npos);
  EXPECT_EQ(explain("data.sources.0.weight"), explain("data.sources.weight"));
  EXPECT_NE(explain("data.sources").find("path"), std::string::npos);
  EXPECT_THROW(explain("data.sources.wieght"), UserError);
  EXPECT_THROW(explain(""), UserError);
  EXPECT_THROW(explain("optim.lr.x"), UserError);
}

// A rule that names a key which does not exist marks nothing.
TEST(Describe, InertRulesNameExistingKeys) {
  Config config;
  for (const bool flip : {false, true}) {
    config.model.attention.kind = flip ? AttentionKind::kGqa : AttentionKind::kMla;
    config.model.attention.sparse = flip ? SparseKind::kNsa : SparseKind::kNone;
    config.model.moe.num_experts = flip ? 8 : 0;
    config.model.moe.first_dense_layers = flip ? 0 : 1;
    config.model.moe.topk_method = flip ? TopkMethod::kGreedy : TopkMethod::kNoauxTc;
    for (const LrScheduleKind kind :
         {LrScheduleKind::kConstant, LrScheduleKind::kCosine, LrScheduleKind::kStep, LrScheduleKind::kWsd}) {
      config.optim.schedule.kind = kind;
      for (const InertKey& key : inert_keys(config)) EXPECT_NO_THROW(explain(key.path)) << key.path;
    }
  }
}

TEST(Inert, OnlyWhatSomebodySetIsTold) {
  Config config;
  config.model.moe.num_experts = 0;
  EXPECT_TRUE(describe_inert(config, {}).empty());
  EXPECT_TRUE(describe_inert(config, {{"optim.lr", "a.yaml:1:1"}}).empty());
  const std::vector<std::string> told = describe_inert(
      config, {{"model.moe.top_k", "a.yaml:3:4"}, {"balance.sequence_alpha", "a.yaml:9:4"}, {"model.attention.nsa.window", "w"}});
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0],
            "no effect, since model.moe.num_experts is 0: balance.sequence_alpha (a.yaml:9:4), model.moe.top_k (a.yaml:3:4)");
  EXPECT_EQ(told[1], "no effect, since model.attention.sparse is none: model.attention.nsa.window (w)");
}

}  // namespace
}  // namespace hadal::config
