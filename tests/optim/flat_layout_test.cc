// Guards: the arithmetic of ZeRO-1: every element of every parameter has one owner, segments are equal, packed state has no
// holes, and alone a rank owns every parameter in one piece.
#include "optim/flat_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace hadal::optim {
namespace {

const std::vector<std::int64_t> kNumels{1, 37, 300, 16, 2048, 5, 700, 64, 1, 999, 31};

class Layouts : public testing::TestWithParam<std::tuple<int, std::int64_t>> {};

TEST_P(Layouts, EveryElementHasOneOwnerAndOnePlace) {
  const auto [ranks, bucket_numel] = GetParam();
  const FlatLayout layout(kNumels, ranks, bucket_numel);
  // owners[slab][element]: -1 where no parameter lies.
  std::vector<std::vector<int>> owners;
  std::vector<std::vector<int>> state_uses;
  for (std::size_t s = 0; s < layout.slabs().size(); ++s) {
    const FlatLayout::Slab& slab = layout.slabs()[s];
    EXPECT_EQ(slab.bucket_numel % (ranks * FlatLayout::kAlignment), 0);
    EXPECT_EQ(layout.owned_numel(s) * ranks, slab.numel());
    owners.emplace_back(static_cast<std::size_t>(slab.numel()), -1);
    state_uses.emplace_back(static_cast<std::size_t>(slab.numel()), 0);
  }
  for (std::size_t p = 0; p < kNumels.size(); ++p) {
    const FlatLayout::Place& place = layout.places()[p];
    EXPECT_EQ(place.begin % FlatLayout::kAlignment, 0);
    std::int64_t next = 0;
    for (const FlatLayout::Piece& piece : layout.pieces(p)) {
      EXPECT_EQ(piece.parameter, p);
      EXPECT_EQ(piece.slab, place.slab);
      EXPECT_EQ(layout.slab_of(piece.bucket), piece.slab);
      EXPECT_EQ(piece.parameter_begin, next);
      EXPECT_EQ(piece.slab_begin, place.begin + next);
      const FlatLayout::Slab& slab = layout.slabs()[piece.slab];
      const std::int64_t segment = slab.bucket_numel / ranks;
      const std::int64_t in_bucket =
          piece.slab_begin - static_cast<std::int64_t>(piece.bucket - slab.first_bucket) * slab.bucket_numel;
      EXPECT_EQ(in_bucket / segment, piece.owner);
      EXPECT_LE(in_bucket % segment + piece.numel, segment);
      for (std::int64_t i = 0; i < piece.numel; ++i) {
        int& owner = owners[piece.slab][static_cast<std::size_t>(piece.slab_begin + i)];
        EXPECT_EQ(owner, -1);
        owner = piece.owner;
        ASSERT_LT(piece.owned_begin + i, layout.owned_numel(piece.slab));
        ++state_uses[piece.slab][static_cast<std::size_t>(piece.owner * layout.owned_numel(piece.slab) + piece.owned_begin + i)];
      }
      next += piece.numel;
    }
    EXPECT_EQ(next, kNumels[p]);
  }
  for (const std::vector<int>& slab : state_uses) {
    for (const int uses : slab) EXPECT_LE(uses, 1);
  }
}

TEST_P(Layouts, BucketsAreOfTheAskedSize) {
  const auto [ranks, bucket_numel] = GetParam();
  const FlatLayout layout(kNumels, ranks, bucket_numel);
  const std::int64_t unit = ranks * FlatLayout::kAlignment;
  for (std::size_t s = 0; s < layout.slabs().size(); ++s) {
    const FlatLayout::Slab& slab = layout.slabs()[s];
    if (ranks > 1) {
      EXPECT_LE(slab.bucket_numel, 2 * bucket_numel + unit);
    } else {
      EXPECT_EQ(slab.num_buckets, 1);
    }
    if (s + 1 < layout.slabs().size()) {
      EXPECT_GE(slab.bucket_numel, std::min(bucket_numel, slab.numel()));
    }
  }
  std::int64_t total = 0;
  for (const FlatLayout::Slab& slab : layout.slabs()) total += slab.numel();
  const std::int64_t numel = std::accumulate(kNumels.begin(), kNumels.end(), std::int64_t{0});
  EXPECT_LE(total, numel + static_cast<std::int64_t>(kNumels.size()) * FlatLayout::kAlignment +
                       static_cast<std::int64_t>(layout.num_buckets()) * unit);
}

INSTANTIATE_TEST_SUITE_P(All, Layouts, testing::Combine(testing::Values(1, 2, 3, 4, 7), testing::Values(1, 64, 500, 100000)));

TEST(FlatLayout, AHugeParameterIsNotCutIntoThousandsOfPieces) {
  const std::vector<std::int64_t> numels{std::int64_t{129280} * 7168};
  for (const int ranks : {2, 8, 64, 2048}) {
    EXPECT_LE(FlatLayout(numels, ranks, 1 << 20).pieces(0).size(), std::max<std::size_t>(1024, static_cast<std::size_t>(ranks))) << ranks;
  }
}

TEST(FlatLayout, AloneAParameterIsOnePiece) {
  const FlatLayout layout(kNumels, 1, 64);
  for (std::size_t p = 0; p < kNumels.size(); ++p) {
    const std::vector<FlatLayout::Piece> pieces = layout.pieces(p);
    ASSERT_EQ(pieces.size(), 1u);
    EXPECT_EQ(pieces[0].numel, kNumels[p]);
  }
}

}  // namespace
}  // namespace hadal::optim
