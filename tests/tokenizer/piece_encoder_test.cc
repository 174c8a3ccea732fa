#include "tokenizer/piece_encoder.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "core/rng.h"

namespace hadal::tokenizer {
namespace {

struct Rule {
  std::uint32_t left, right, merged;
};

// Ids 0 .. 255 are the bytes.
PieceEncoder encoder_of(const std::vector<Rule>& rules) {
  std::array<std::uint32_t, 256> bytes{};
  std::iota(bytes.begin(), bytes.end(), 0u);
  MergeTable table(rules.size());
  for (std::uint32_t rank = 0; rank < rules.size(); ++rank) {
    table.insert(rules[rank].left, rules[rank].right, MergeRule{rank, rules[rank].merged});
  }
  return PieceEncoder(bytes, std::move(table));
}

std::vector<std::int32_t> encode(const PieceEncoder& encoder, std::string_view piece) {
  std::vector<std::int32_t> ids;
  encoder.encode(piece, ids);
  return ids;
}

// The definition, one merge at a time.
std::vector<std::int32_t> by_definition(const std::vector<Rule>& rules, std::string_view piece) {
  std::vector<std::int32_t> ids;
  for (const char byte : piece) ids.push_back(static_cast<unsigned char>(byte));
  std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks;
  for (std::size_t rank = 0; rank < rules.size(); ++rank) {
    ranks[{static_cast<std::int32_t>(rules[rank].left), static_cast<std::int32_t>(rules[rank].right)}] = rank;
  }
  while (true) {
    std::size_t best = rules.size();
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    }
    if (best == rules.size()) return ids;
    ids[at] = static_cast<std::int32_t>(rules[best].merged);
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

// spec/interop.md 4.6: merges (a, a), (aa, a) give aaaaa -> aa, aaa.
TEST(PieceEncoder, FiveLetters) {
  const PieceEncoder encoder = encoder_of({{'a', 'a', 256}, {256, 'a', 257}});
  EXPECT_EQ(encode(encoder, "aaaaa"), (std::vector<std::int32_t>{256, 257}));
}

TEST(PieceEncoder, EqualsTheDefinitionForShortAndLongPieces) {
  const Random random(3, RandomPurpose::kSynthetic);
  std::uint64_t draw = 0;
  std::size_t merged = 0;
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<Rule> rules;
    std::uint32_t next = 256;
    for (int i = 0; i < 40; ++i) {
      const auto pick = [&] {
        const std::uint64_t choice = random.below(draw++, 4 + next - 256);
        return static_cast<std::uint32_t>(choice < 4 ? 'a' + choice : 256 + choice - 4);
      };
      const std::uint32_t left = pick();
      rules.push_back({left, pick(), next++});
    }
    const PieceEncoder encoder = encoder_of(rules);
    for (std::size_t size = 1; size < 130; size += 1 + size / 8) {
      std::string piece;
      while (piece.size() < size) piece += static_cast<char>('a' + random.below(draw++, 4));
      const std::vector<std::int32_t> ids = encode(encoder, piece);
      ASSERT_EQ(ids, by_definition(rules, piece)) << piece;
      merged += piece.size() - ids.size();
    }
  }
  EXPECT_GT(merged, 1000u);
}

TEST(PieceEncoder, LongPieceTakesNoSquareTime) {
  const PieceEncoder encoder = encoder_of({{'a', 'a', 256}, {256, 256, 257}, {257, 257, 258}});
  EXPECT_EQ(encode(encoder, std::string(4 << 20, 'a')).size(), std::size_t{4 << 20} / 8);
}

}  // namespace
}  // namespace hadal::tokenizer
