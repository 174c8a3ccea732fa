// The pieces that long documents are cut into encode to the ids of the whole: no pre-tokenizer joins text across a cut.
#include <gtest/gtest.h>

#include "core/rng.h"
#include "data_tools/documents.h"
#include "tokenizer/pre_tokenizer.h"

namespace hadal::data_tools {
namespace {

using tokenizer::PreTokenizerKind;

/// Words, numbers, punctuation, blanks and line breaks in every order, some beyond ASCII.
std::string jumble(std::uint64_t stream) {
  static const std::string_view parts[] = {"word",
                                           "Word",
                                           "a",
                                           "12345",
                                           "7",
                                           "'s",
                                           "'",
                                           ".",
                                           "...",
                                           ",",
                                           "!\n",
                                           "\n",
                                           "\n\n",
                                           "\r\n",
                                           " ",
                                           "  ",
                                           "\t",
                                           " \n",
                                           "\n ",
                                           "(",
                                           ") ",
                                           "don't",
                                           "\xc3\xa9t\xc3\xa9",
                                           "\xe4\xb8\xad\xe6\x96\x87",
                                           "\xf0\x9f\x98\x80",
                                           "\xe2\x80\xa8",
                                           "\xcc\x81",
                                           "_x",
                                           "$",
                                           "x\ny",
                                           "x y"};
  const Random random(21, RandomPurpose::kSynthetic, stream);
  std::string text;
  for (std::uint64_t i = 0; i < 60; ++i) text += parts[random.below(i, std::size(parts))];
  return text;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

TEST(PieceCut, NoPreTokenizerJoinsTextAcrossACut) {
  int cuts = 0;
  for (std::uint64_t stream = 0; stream < 2000; ++stream) {
    const std::string text = jumble(stream);
    for (const std::size_t limit : {text.size() / 3, text.size() / 2, text.size() - 1}) {
      const std::string_view view = text;
      const std::size_t cut = safe_cut(view.substr(0, limit + 1), limit);
      // The last resort, between any two characters, promises nothing.
      const bool at_word = view[cut] == ' ' && is_letter(view[cut - 1]) && is_letter(view[cut + 1]);
      const bool at_line = cut >= 2 && view[cut - 1] == '\n' && view[cut - 2] > ' ' && is_letter(view[cut]);
      if (!at_word && !at_line) continue;
      ++cuts;
      for (const PreTokenizerKind kind : {PreTokenizerKind::kDeepSeekV3, PreTokenizerKind::kGpt2}) {
        std::vector<std::string_view> whole;
        std::vector<std::string_view> parts;
        split_pieces(kind, view, whole);
        split_pieces(kind, view.substr(0, cut), parts);
        split_pieces(kind, view.substr(cut), parts);
        ASSERT_EQ(parts, whole) << text << "\ncut at " << cut;
      }
    }
  }
  EXPECT_GT(cuts, 3000);
}

}  // namespace
}  // namespace hadal::data_tools
