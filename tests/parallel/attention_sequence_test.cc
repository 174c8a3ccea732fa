// Attention over context-parallel ranks, each with two chunks of every sequence, alone and with tensor-parallel heads, against
// one rank: blocks and windows that straddle the chunks' borders, chunks shorter than either.
#include <algorithm>

#include "tests/parallel/attention_variants.h"

namespace hadal {
namespace {

class AttentionSequence : public ::testing::TestWithParam<test::AttentionVariant> {};

TEST_P(AttentionSequence, EqualsOneRank) {
  for (const std::int64_t seq : {8, 24, 40, 56}) {
    for (const int cp : {2, 4}) EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.cp = cp}, 2, seq));
  }
}

TEST_P(AttentionSequence, WithHeadsEqualsOneRank) {
  EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.cp = 2, .tp = 2}, 2, 40));
  EXPECT_TRUE(test::attention_equals_one_rank(GetParam().options, {.cp = 2, .tp = 4}, 1, 36));
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionSequence, ::testing::ValuesIn(test::attention_variants()),
                         [](const auto& variant) { return variant.param.name; });

/// Planted: gathers that lose the rows before each segment (the window's halo), or those after the last (the blocks' halo).
class DroppedHalo : public nn::SequenceShard {
 public:
  DroppedHalo(const nn::SequenceShard& true_one, std::int64_t before, std::int64_t after)
      : true_one_(true_one), before_(before), after_(after) {}

  std::int64_t whole_seq() const override { return true_one_.whole_seq(); }
  std::span<const nn::Segment> segments() const override { return true_one_.segments(); }
  void gather(Stream& stream, std::int64_t batch, nn::RowSpacing spacing, std::span<const kernels::ConstHeads> local,
              std::span<const kernels::Heads> whole) const override {
    true_one_.gather(stream, batch, spacing, local, whole);
    if (spacing.stride != 1) return;
    for (std::int64_t b = 0; b < batch; ++b) {
      for (const nn::Segment& segment : segments()) drop(whole, b, segment.position - before_, segment.position);
      const nn::Segment& last = segments().back();
      drop(whole, b, last.position + last.length, last.position + last.length + after_);
    }
  }
  void reduce_scatter(Stream& stream, std::int64_t batch, nn::RowSpacing spacing, std::span<const kernels::ConstHeads> whole,
                      std::span<const kernels::Heads> local) const override {
    true_one_.reduce_scatter(stream, batch, spacing, whole, local);
  }

 private:
  void drop(std::span<const kernels::Heads> whole, std::int64_t b, std::int64_t begin, std::int64_t end) const {
    for (const kernels::Heads& x : whole) {
      for (std::int64_t t = std::max<std::int64_t>(begin, 0); t < std::min(end, whole_seq()); ++t) {
        double* const row = x.as<double>() + (b * whole_seq() + t) * x.token_stride;
        std::fill(row, row + x.heads * x.width, 0.0);
      }
    }
  }

  const nn::SequenceShard& true_one_;
  std::int64_t before_, after_;
};

TEST(AttentionHalo, DroppingItIsCaught) {
  for (const nn::AttentionOptions& options : {test::sparse(test::small_mla()), test::sparse(test::many_gqa())}) {
    const auto with_halo_dropped = [&](std::int64_t before, std::int64_t after) {
      return test::attention_equals_one_rank(options, {.cp = 2}, 1, 40, {.sequence = [=](const nn::SequenceShard& sequence) {
                                               return std::make_unique<DroppedHalo>(sequence, before, after);
                                             }});
    };
    EXPECT_TRUE(with_halo_dropped(0, 0));
    EXPECT_FALSE(with_halo_dropped(options.nsa->window - 1, 0));
    EXPECT_FALSE(with_halo_dropped(0, options.nsa->block_length - options.nsa->block_stride));
  }
}

}  // namespace
}  // namespace hadal
