// Guards: moves of rows on the device (exact), their sums in f32 in a fixed order, on widths that fit 16-byte units and that do not,
// with -1 among the indices, nothing to move, and one target for all rows; ids to rows of a share; strided copies of heads.
#include "kernels/rows.h"

#include <algorithm>
#include <numeric>

#include "core/rng.h"
#include "kernels/copy_heads.h"
#include "kernels/local_rows.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

constexpr DType kDtypes[] = {DType::kF32, DType::kBf16};
constexpr std::int64_t kWidths[] = {1, 3, 8, 20, 64, 136, 257, 2048, 7168};

/// `count` values from -1 or 0 on, below `bound`.
std::vector<std::int64_t> indices(std::int64_t count, std::int64_t bound, std::uint64_t seed, bool with_none = true) {
  const Random random(seed, RandomPurpose::kSynthetic, 5);
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto none = static_cast<std::uint64_t>(with_none);
    values[i] = static_cast<std::int64_t>(random.below(i, static_cast<std::uint64_t>(bound) + none)) - with_none;
  }
  return values;
}

/// A random order of 0 .. count - 1.
std::vector<std::int64_t> order_of(std::int64_t count, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const Random random(seed, RandomPurpose::kSynthetic, 6);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i, i)]);
  return order;
}

TEST(CudaRows, GatherMovesRowsAndZeros) {
  for (const DType dtype : kDtypes) {
    for (const std::int64_t width : kWidths) {
      for (const std::int64_t rows : {0, 1, 203}) {
        SCOPED_TRACE(testing::Message() << rows << " rows of " << width << " " << name_of(dtype));
        Twin x = Twin::normal({37, width}, dtype, 1), index = Twin::ints({rows}, indices(rows, 37, 2)), y = Twin::output({rows, width}, dtype);
        run_on_both({&x, &index}, {&y},
                    [&](Stream& stream, Side side) { run(stream, kernels::GatherRows{.x = side(x), .index = side(index), .y = side(y)}); });
        EXPECT_TRUE(y.agrees(0));
      }
    }
  }
}

TEST(CudaRows, SpreadIsTheInverseOfGather) {
  for (const DType dtype : kDtypes) {
    for (const std::int64_t width : kWidths) {
      for (const std::int64_t tokens : {0, 1, 67}) {
        constexpr std::int64_t kSlots = 3;
        SCOPED_TRACE(testing::Message() << tokens << " tokens of " << width << " " << name_of(dtype));
        std::vector<std::int64_t> target = order_of(tokens * kSlots, 3);
        if (tokens > 1) target[4] = target[11] = -1;
        Twin x = Twin::normal({tokens, width}, dtype, 1), index = Twin::ints({tokens, kSlots}, target);
        Twin y = Twin::normal({tokens * kSlots, width}, dtype, 7);
        run_on_both({&x, &index}, {&y},
                    [&](Stream& stream, Side side) { run(stream, kernels::SpreadRows{.x = side(x), .index = side(index), .y = side(y)}); });
        EXPECT_TRUE(y.agrees(0));
      }
    }
  }
}

TEST(CudaRows, CombineSumsInF32) {
  for (const DType dtype : kDtypes) {
    for (const std::int64_t width : kWidths) {
      for (const std::int64_t slots : {1, 6, 17}) {
        for (const int base_kind : {0, 1, 2}) {  // none, of its own, y itself
          SCOPED_TRACE(testing::Message() << slots << " rows of " << width << " " << name_of(dtype) << ", base " << base_kind);
          Twin x = Twin::normal({101, width}, dtype, 1), index = Twin::ints({29, slots}, indices(29 * slots, 101, 2));
          Twin base = Twin::normal({29, width}, dtype, 3);
          Twin y = base_kind == 2 ? Twin::normal({29, width}, dtype, 4) : Twin::output({29, width}, dtype);
          run_on_both({&x, &index, &base}, {&y}, [&](Stream& stream, Side side) {
            run(stream, kernels::CombineRows{.x = side(x),
                                             .index = side(index),
                                             .base = base_kind == 0   ? View{}
                                                     : base_kind == 1 ? side(base)
                                                                      : side(y),
                                             .y = side(y)});
          });
          EXPECT_TRUE(y.agrees(tolerance_of(dtype, slots)));
        }
      }
    }
  }
}

TEST(CudaRows, CombineTakesNoTokensAndViewsThatAreNotAligned) {
  Twin x = Twin::normal({5, 16}, DType::kBf16, 1), index = Twin::ints({0, 2}, {}), y = Twin::output({0, 16}, DType::kBf16);
  run_on_both({&x, &index}, {&y},
              [&](Stream& stream, Side side) { run(stream, kernels::CombineRows{.x = side(x), .index = side(index), .base = {}, .y = side(y)}); });
  // Rows of 12 bytes: every other one starts off a boundary of 16.
  Twin narrow = Twin::normal({6, 6}, DType::kBf16, 2), two = Twin::ints({2, 2}, {0, 3, 4, -1}), sum = Twin::output({2, 6}, DType::kBf16);
  run_on_both({&narrow, &two}, {&sum}, [&](Stream& stream, Side side) {
    run(stream, kernels::CombineRows{.x = side(narrow).rows(1, 6), .index = side(two), .base = {}, .y = side(sum)});
  });
  EXPECT_TRUE(sum.agrees(tolerance_of(DType::kBf16)));
}

TEST(CudaRows, ScatterAddsInOrderToTheEmbeddingsGradient) {
  struct Size {
    std::int64_t targets, rows, width;
  };
  for (const DType dtype : kDtypes) {
    for (const Size& size : {Size{5, 0, 8},
                             {1, 1, 1},
                             {7, 31, 3},
                             {64, 300, 64},
                             {1000, 20000, 20},
                             {102400, 16384, 64},
                             {300000, 999, 8},
                             {511, 700, 8},
                             {512, 700, 8},
                             {33, 500, 2056},
                             {3, 2000, 8},
                             {90000, 70000, 8},
                             {2, 129, 136}}) {
      SCOPED_TRACE(testing::Message() << size.rows << " rows of " << size.width << " " << name_of(dtype) << " to " << size.targets);
      Twin d_y = Twin::normal({size.rows, size.width}, dtype, 1), index = Twin::ints({size.rows}, indices(size.rows, size.targets, 2));
      Twin d_x = Twin::normal({size.targets, size.width}, DType::kF32, 3);
      run_on_both({&d_y, &index}, {&d_x},
                  [&](Stream& stream, Side side) { run(stream, kernels::ScatterAddRows{.d_y = side(d_y), .index = side(index), .d_x = side(d_x)}); });
      EXPECT_TRUE(d_x.agrees(tolerance_of(DType::kF32, 1 + size.rows / size.targets)));
    }
  }
}

TEST(CudaRows, ScatterAddKeepsTheOrderOfRows) {
  // In f32, 1e8 + 1 - 1e8 is 0 and 1e8 - 1e8 + 1 is 1: only the order of the rows gives what it should.
  const float values[] = {1e8f, 1.0f, -1e8f, 1e8f, -1e8f, 1.0f};
  Stream gpu = stream_of(kGpu);
  Tensor host = Tensor::empty({6, 1}, DType::kF32);
  std::ranges::copy(values, host.as<float>());
  Twin index = Twin::ints({6}, {4, 4, 4, 2, 2, 2});
  const Tensor d_y = to_device(gpu, host, kGpu);
  Tensor d_x = Tensor::zeros({5, 1}, DType::kF32, kGpu);
  run(gpu, kernels::ScatterAddRows{.d_y = d_y, .index = index.device(), .d_x = d_x});
  const Tensor got = to_host(gpu, d_x);
  EXPECT_EQ(got.as<float>()[4], 0.0f);
  EXPECT_EQ(got.as<float>()[2], 1.0f);
}

TEST(CudaRows, ScatterAddOfAllRowsToOneTarget) {
  Twin d_y = Twin::normal({3001, 72}, DType::kBf16, 1), index = Twin::ints({3001}, std::vector<std::int64_t>(3001, 6));
  Twin d_x = Twin::zeros({9, 72}, DType::kF32);
  run_on_both({&d_y, &index}, {&d_x},
              [&](Stream& stream, Side side) { run(stream, kernels::ScatterAddRows{.d_y = side(d_y), .index = side(index), .d_x = side(d_x)}); });
  EXPECT_TRUE(d_x.agrees(tolerance_of(DType::kF32, 3001)));
}

TEST(CudaRows, ScatterAddPassesRowsThatGoNowhereAndCrowdedBuckets) {
  // Rows of another share come as -1; targets a bucket count apart share a bucket, whose rows no warp sees at once.
  std::vector<std::int64_t> values(4096);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t kind = i * 7 % 16;
    values[i] = kind < 9 ? -1 : kind < 12 ? 127 * static_cast<std::int64_t>(i % 40) : static_cast<std::int64_t>(i % 5000);
  }
  Twin d_y = Twin::normal({4096, 24}, DType::kBf16, 1), index = Twin::ints({4096}, values), d_x = Twin::normal({6000, 24}, DType::kF32, 3);
  run_on_both({&d_y, &index}, {&d_x},
              [&](Stream& stream, Side side) { run(stream, kernels::ScatterAddRows{.d_y = side(d_y), .index = side(index), .d_x = side(d_x)}); });
  EXPECT_TRUE(d_x.agrees(tolerance_of(DType::kF32, 100)));
}

TEST(CudaRows, LocalRowsAreThoseOfTheShare) {
  for (const std::int64_t count : {0, 1, 1000}) {
    Twin ids = Twin::ints({count}, indices(count, 50, 4)), rows = Twin::output({count}, DType::kI32);
    run_on_both({&ids}, {&rows},
                [&](Stream& stream, Side side) { run(stream, kernels::LocalRows{.ids = side(ids), .rows = side(rows), .begin = 10, .end = 31}); });
    EXPECT_TRUE(rows.equal());
  }
}

TEST(CudaRows, CopyHeadsMovesAndAddsStridedMatrices) {
  struct Size {
    std::int64_t tokens, heads, width, x_total, x_offset, y_total, y_offset;
  };
  for (const DType dtype : kDtypes) {
    for (const Size& s : {Size{1, 1, 1, 1, 0, 1, 0},
                          {9, 4, 128, 192, 64, 128, 0},
                          {9, 4, 64, 64, 0, 192, 128},
                          {33, 1, 64, 576, 512, 64, 0},
                          {17, 3, 5, 11, 2, 7, 1},
                          {6, 2, 24, 32, 8, 27, 3},
                          {300, 16, 128, 128, 0, 128, 0}}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(testing::Message() << s.tokens << " x " << s.heads << " x " << s.width << " " << name_of(dtype));
        Twin x = Twin::normal({s.tokens + 2, s.heads, s.x_total}, dtype, 1), y = Twin::normal({s.tokens + 1, s.heads, s.y_total}, dtype, 2);
        run_on_both({&x}, {&y}, [&](Stream& stream, Side side) {
          const kernels::ConstHeads from = kernels::heads_of(side(x), s.heads, s.x_total, s.x_offset, s.width);
          run(stream, kernels::CopyHeads{.x = kernels::token_rows(from, 2, s.tokens),
                                         .y = kernels::token_rows(kernels::heads_of(side(y), s.heads, s.y_total, s.y_offset, s.width), 1, s.tokens),
                                         .accumulate = accumulate});
        });
        EXPECT_TRUE(y.agrees(accumulate ? tolerance_of(dtype) : 0));
      }
    }
  }
}

}  // namespace
}  // namespace hadal::test
