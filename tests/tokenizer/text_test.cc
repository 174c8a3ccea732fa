// UTF-8 and the byte map.
#include <gtest/gtest.h>

#include <set>

#include "tokenizer/byte_map.h"
#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

TEST(Utf8, EveryCodePointRoundTrips) {
  for (std::uint32_t point = 0; point < 0x110000; ++point) {
    std::string text;
    append_utf8(point, text);
    const DecodedCharacter character = decode_character(text, 0);
    if (point >= 0xD800 && point <= 0xDFFF) {
      ASSERT_FALSE(character.valid) << point;
    } else {
      ASSERT_TRUE(character.valid && character.code_point == point && character.size == text.size()) << point;
    }
  }
}

// One U+FFFD for each maximal invalid sequence: the vectors of the Unicode standard, 3.9, tables 3-8 to 3-11.
TEST(Utf8, ReplacesMaximalInvalidSequences) {
  const auto replaced = [](std::string_view text) {
    std::size_t count = 0;
    const std::string out = replace_invalid(text, count);
    return std::pair(out, count);
  };
  const std::string fffd = "\xEF\xBF\xBD";
  const auto times = [&fffd](int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += fffd;
    return out;
  };
  EXPECT_EQ(replaced("plain"), (std::pair<std::string, std::size_t>("plain", 0)));
  EXPECT_EQ(replaced("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), (std::pair<std::string, std::size_t>(times(8) + "A", 8)));
  EXPECT_EQ(replaced("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), (std::pair<std::string, std::size_t>(times(8) + "A", 8)));
  EXPECT_EQ(replaced("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            (std::pair<std::string, std::size_t>(times(5) + "A" + times(2) + "B", 7)));
  EXPECT_EQ(replaced("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), (std::pair<std::string, std::size_t>(times(4) + "A", 4)));
}

TEST(Utf8, CompletePrefixHoldsBackUnfinishedCharacters) {
  EXPECT_EQ(complete_prefix(""), 0u);
  EXPECT_EQ(complete_prefix("ab"), 2u);
  EXPECT_EQ(complete_prefix("a\xC3"), 1u);
  EXPECT_EQ(complete_prefix("a\xC3\xA9"), 3u);
  EXPECT_EQ(complete_prefix("a\xE6\xB5"), 1u);
  EXPECT_EQ(complete_prefix("a\xF0\x9F\x8C"), 1u);
  EXPECT_EQ(complete_prefix("a\xF0\x9F\x8C\x8A"), 5u);
  EXPECT_EQ(complete_prefix("a\xFF"), 2u) << "never becomes valid";
  EXPECT_EQ(complete_prefix("a\xE6\x41"), 3u) << "never becomes valid";
  EXPECT_EQ(complete_prefix("\x80\x80\x80\x80"), 4u);
}

TEST(ByteMap, FollowsTheSpecification) {
  const auto& characters = byte_characters();
  EXPECT_EQ(characters[0], 0x100u);
  EXPECT_EQ(characters[0x0A], 0x10Au);
  EXPECT_EQ(characters[0x20], 0x120u);
  EXPECT_EQ(characters['a'], static_cast<std::uint32_t>('a'));
  EXPECT_EQ(characters[0x7F], 0x121u);
  EXPECT_EQ(characters[0xAD], 0x143u);
  EXPECT_EQ(std::set<std::uint32_t>(characters.begin(), characters.end()).size(), 256u);
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(unmap_bytes(map_bytes(all)), all);
  EXPECT_EQ(map_bytes(" the\n"), "\u0120the\u010A");
  EXPECT_EQ(unmap_bytes("\u2581the"), std::nullopt);
  EXPECT_EQ(unmap_bytes("a b"), std::nullopt) << "the space itself is not in the map";
}

}  // namespace
}  // namespace hadal::tokenizer
