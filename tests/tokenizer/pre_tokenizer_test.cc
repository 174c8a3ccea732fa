#include "tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "core/rng.h"
#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

using Pieces = std::vector<std::string_view>;

Pieces split_by_regex(PreTokenizerKind kind, std::string_view text) {
  Pieces pieces;
  split_pieces_by_regex(kind, text, pieces);
  return pieces;
}

Pieces split(PreTokenizerKind kind, std::string_view text) {
  Pieces pieces;
  split_pieces(kind, text, pieces);
  return pieces;
}

TEST(PreTokenizer, DeepSeekV3Stages) {
  const auto pieces = [](std::string_view text) { return split(PreTokenizerKind::kDeepSeekV3, text); };
  EXPECT_EQ(pieces("12345 waves"), (Pieces{"123", "45", " waves"}));
  EXPECT_EQ(pieces("深海の魚 is"), (Pieces{"深海の魚", " is"}));
  EXPECT_EQ(pieces("foo_bar(baz)\n\n"), (Pieces{"foo", "_bar", "(baz", ")\n\n"}));
  EXPECT_EQ(pieces("a  b"), (Pieces{"a", " ", " b"}));
  // A stage sees its piece alone: the spaces before the digits end their subject, so the look-ahead keeps both together.
  EXPECT_EQ(pieces("a  7"), (Pieces{"a", "  ", "7"}));
  EXPECT_EQ(pieces(""), Pieces{});
}

TEST(PreTokenizer, Gpt2) {
  const auto pieces = [](std::string_view text) { return split(PreTokenizerKind::kGpt2, text); };
  EXPECT_EQ(pieces("we've 12345"), (Pieces{"we", "'ve", " 12345"}));
  EXPECT_EQ(pieces("a  7"), (Pieces{"a", " ", " 7"}));
  EXPECT_EQ(pieces("x\n\ny  "), (Pieces{"x", "\n", "\n", "y", "  "}));
}

// PCRE2's own \s holds U+180E; Unicode's White_Space, and HF's \s, do not.
TEST(PreTokenizer, MongolianVowelSeparatorIsNoSpace) {
  EXPECT_EQ(split(PreTokenizerKind::kGpt2, "a\u180e b"), (Pieces{"a", "\u180e", " b"}));
  EXPECT_EQ(split(PreTokenizerKind::kGpt2, "a\u0085\u3000b"), (Pieces{"a", "\u0085", "\u3000", "b"}));
}

TEST(PreTokenizer, LongRunsNeedNoStack) {
  for (const PreTokenizerKind kind : {PreTokenizerKind::kDeepSeekV3, PreTokenizerKind::kGpt2}) {
    for (const char* unit : {"a", " ", "\n", "!", "\u0301", "\u6d77", "\x01", " \n", "a1", "\u00a0"}) {
      std::string text;
      while (text.size() < 300000) text += unit;
      const Pieces pieces = split(kind, text);
      std::size_t bytes = 0;
      for (const std::string_view piece : pieces) bytes += piece.size();
      EXPECT_EQ(bytes, text.size());
    }
  }
}

std::string random_text(std::uint64_t seed) {
  static const std::vector<std::string> units = {" ",          " ",      "\n",     "\r\n",   "\r",     "\t",     "a",
                                                 "B",          "'s",     "7",      "42",     "!",      "...",    "\u00e9",
                                                 "\u0301",     "\u6d77", "\u3042", "\u3000", "\u00a0", "\u180e", "\u2028",
                                                 "\U0001f30a", "_",      "\x01",   "\u200b", "\u0085", "\xff",   "\xe6\xb5"};
  const Random random(seed, RandomPurpose::kSynthetic);
  std::string text;
  for (std::uint64_t i = 0; i < 40; ++i) text += units[random.below(i, units.size())];
  return text;
}

// The hand-written way for ASCII, and the cuts into lines, against the definition.
TEST(PreTokenizer, EqualsTheRegularExpressions) {
  const Random random(9, RandomPurpose::kSynthetic);
  std::uint64_t draw = 0;
  // Few classes of characters, so that every transition of two and three of them comes up; then all of ASCII.
  constexpr std::string_view kFew = "  \n\r\tabslltrvemdAZ019''!._\x01\x7f\v";
  for (const PreTokenizerKind kind : {PreTokenizerKind::kDeepSeekV3, PreTokenizerKind::kGpt2}) {
    for (int trial = 0; trial < 20000; ++trial) {
      std::string text;
      const std::uint64_t size = 1 + random.below(draw++, 30);
      for (std::uint64_t i = 0; i < size; ++i) {
        text += trial % 4 == 0 ? static_cast<char>(random.below(draw++, 128)) : kFew[random.below(draw++, kFew.size())];
      }
      ASSERT_EQ(split(kind, text), split_by_regex(kind, text)) << name_of(kind) << " trial " << trial;
    }
    for (std::uint64_t seed = 0; seed < 4000; ++seed) {
      std::size_t replaced = 0;
      const std::string text = replace_invalid(random_text(seed), replaced);
      ASSERT_EQ(split(kind, text), split_by_regex(kind, text)) << name_of(kind) << " seed " << seed;
    }
  }
}

// What training and long texts rely on: cutting at a safe place leaves every piece as it was.
TEST(PreTokenizer, SafeCutsMoveNoPiece) {
  for (const PreTokenizerKind kind : {PreTokenizerKind::kDeepSeekV3, PreTokenizerKind::kGpt2}) {
    std::size_t cuts = 0;
    for (std::uint64_t seed = 0; seed < 4000; ++seed) {
      const std::string raw = random_text(seed);
      std::size_t replaced = 0;
      const std::string text = replace_invalid(raw, replaced);
      const Pieces whole = split_by_regex(kind, text);
      for (std::size_t cut = find_safe_cut(kind, text, 1); cut < text.size(); cut = find_safe_cut(kind, text, cut + 1)) {
        ++cuts;
        Pieces parts = split_by_regex(kind, std::string_view(text).substr(0, cut));
        const Pieces rest = split_by_regex(kind, std::string_view(text).substr(cut));
        parts.insert(parts.end(), rest.begin(), rest.end());
        ASSERT_EQ(parts, whole) << name_of(kind) << " seed " << seed << " cut " << cut;
      }
      // A cut in the raw bytes and a cut after repair are the same cut.
      for (std::size_t cut = find_safe_cut(kind, raw, 1); cut < raw.size(); cut = find_safe_cut(kind, raw, cut + 1)) {
        ASSERT_EQ(replace_invalid(raw.substr(0, cut), replaced) + replace_invalid(raw.substr(cut), replaced), text);
      }
    }
    EXPECT_GT(cuts, 1000u);
  }
}

}  // namespace
}  // namespace hadal::tokenizer
