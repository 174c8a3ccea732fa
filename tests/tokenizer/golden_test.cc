// Merges and ids equal those of HF tokenizers, committed as constants.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/tokenizer/golden_data.h"
#include "tokenizer/train.h"

namespace hadal::tokenizer {
namespace {

Tokenizer train_on_golden_text(PreTokenizerKind kind) {
  TrainOptions options;
  options.vocab_size = golden::kVocabSize;
  options.pre_tokenizer = kind;
  int given = 0;
  return train(options, [&given]() -> std::optional<std::string> {
    if (given++ > 0) return std::nullopt;
    std::string text;
    for (int i = 0; i < golden::kRepeats; ++i) text += golden::kText;
    return text;
  });
}

using MergeList = std::vector<std::pair<std::string_view, std::string_view>>;

void expect_merges(const Tokenizer& tokenizer, const MergeList& merges) {
  const auto found = nlohmann::json::parse(tokenizer.json())["model"]["merges"];
  ASSERT_EQ(found.size(), merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    ASSERT_EQ(found[rank][0], merges[rank].first) << "merge " << rank;
    ASSERT_EQ(found[rank][1], merges[rank].second) << "merge " << rank;
  }
}

void expect_ids(const Tokenizer& tokenizer, const std::vector<std::vector<std::int32_t>>& ids) {
  ASSERT_EQ(golden::kStrings.size(), ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(tokenizer.encode(golden::kStrings[i]), ids[i]) << "string " << i << ": " << golden::kStrings[i];
    EXPECT_EQ(tokenizer.decode(ids[i]), golden::kStrings[i]);
  }
}

TEST(Golden, DeepSeekV3) {
  const Tokenizer tokenizer = train_on_golden_text(PreTokenizerKind::kDeepSeekV3);
  expect_merges(tokenizer, golden::kMergesDeepSeekV3);
  expect_ids(tokenizer, golden::kIdsDeepSeekV3);
}

TEST(Golden, Gpt2) {
  const Tokenizer tokenizer = train_on_golden_text(PreTokenizerKind::kGpt2);
  expect_merges(tokenizer, golden::kMergesGpt2);
  expect_ids(tokenizer, golden::kIdsGpt2);
}

}  // namespace
}  // namespace hadal::tokenizer
