// Guards: the grouped products on CUDA against the CPU in f64, in f32 and bf16: experts without rows, with one row, with all rows, and
// around the sizes of tiles; odd widths (which the tensor copy engine refuses) and even ones; weights accumulate, or are
// overwritten whatever was there; rows of other experts that are not numbers do not leak in.
#include "kernels/grouped_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/rng.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

using Sizes = std::vector<std::int64_t>;

Twin offsets_of(const Sizes& sizes) {
  Sizes ends{0};
  for (const std::int64_t size : sizes) ends.push_back(ends.back() + size);
  return Twin::ints({static_cast<std::int64_t>(ends.size())}, ends, DType::kI64);
}

void check(const Sizes& sizes, std::int64_t in, std::int64_t out, DType dtype) {
  SCOPED_TRACE(testing::Message() << name_of(dtype) << ", in " << in << " out " << out << ", rows " << testing::PrintToString(sizes));
  const auto experts = static_cast<std::int64_t>(sizes.size());
  const std::int64_t rows = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  const DType sums = accumulation_dtype(dtype);
  Twin offsets = offsets_of(sizes);
  Twin x = Twin::normal({rows, in}, dtype, 1), w = Twin::normal({experts, out, in}, dtype, 2), d_y = Twin::normal({rows, out}, dtype, 3);
  Twin y = Twin::output({rows, out}, dtype), d_x = Twin::output({rows, in}, dtype), d_w = Twin::normal({experts, out, in}, sums, 4);
  run_on_both({&x, &w, &d_y, &offsets}, {&y, &d_x, &d_w}, [&](Stream& stream, auto side) {
    run(stream, kernels::GroupedGemmForward{.x = side(x), .offsets = side(offsets), .w = side(w), .y = side(y)});
    run(stream, kernels::GroupedGemmBackwardInput{.d_y = side(d_y), .offsets = side(offsets), .w = side(w), .d_x = side(d_x)});
    run(stream, kernels::GroupedGemmBackwardWeight{.d_y = side(d_y), .x = side(x), .offsets = side(offsets), .d_w = side(d_w)});
  });
  EXPECT_TRUE(y.agrees(tolerance_of(dtype, in)));
  EXPECT_TRUE(d_x.agrees(tolerance_of(dtype, out)));
  EXPECT_TRUE(d_w.agrees(tolerance_of(sums, rows)));
}

void check_dtypes(const Sizes& sizes, std::int64_t in, std::int64_t out) {
  check(sizes, in, out, DType::kF32);
  check(sizes, in, out, DType::kBf16);
}

TEST(CudaGroupedGemm, SmallAndEmptyExperts) {
  check_dtypes({5, 0, 1, 33, 2, 64, 0}, 24, 40);
  check_dtypes({0, 0, 7}, 8, 8);
  check_dtypes({1}, 1, 1);
  check_dtypes({0, 0}, 16, 8);
}

TEST(CudaGroupedGemm, OddWidths) {
  check_dtypes({5, 0, 1, 33, 130}, 23, 41);
  check_dtypes({40, 90}, 129, 66);
  check_dtypes({17, 3}, 64, 31);
}

// One row less and more than 64, 128 and 256 rows, beside widths that fill tiles and widths that do not.
TEST(CudaGroupedGemm, AroundTheSizesOfTiles) {
  const Sizes sizes{63, 64, 65, 127, 0, 128, 129, 255, 256, 257, 15, 16, 17};
  check_dtypes(sizes, 256, 128);
  check_dtypes(sizes, 72, 200);
  check_dtypes(sizes, 200, 264);
}

TEST(CudaGroupedGemm, OneExpertHasAllRows) {
  check_dtypes({0, 700, 0, 0}, 136, 320);
  check_dtypes({3000}, 64, 72);
}

TEST(CudaGroupedGemm, ManyExperts) {
  Sizes sizes;
  for (std::int64_t e = 0; e < 256; ++e) sizes.push_back(e * 37 % 11);
  check_dtypes(sizes, 40, 24);
  check_dtypes(Sizes(66, 50), 64, 48);
}

// Widths of the model this is tuned for: whole tiles, several bands, more tiles than blocks.
TEST(CudaGroupedGemm, ModelWidths) {
  check({500, 131, 0, 900}, 704, 1408, DType::kBf16);
  check({2300, 1}, 512, 768, DType::kBf16);
}

// What is there before does not matter, NaN included; experts without rows get zeros. Both kernels that add by the copy engine (d_w as it
// is, and its transpose), the one by mma.sync, and f32.
TEST(CudaGroupedGemm, OverwritesWeightGradientsWhereAsked) {
  const auto overwrite = [](const Sizes& sizes, std::int64_t in, std::int64_t out, DType dtype) {
    SCOPED_TRACE(testing::Message() << name_of(dtype) << ", in " << in << " out " << out << ", rows " << testing::PrintToString(sizes));
    const std::int64_t rows = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
    const DType sums = accumulation_dtype(dtype);
    Twin offsets = offsets_of(sizes), x = Twin::normal({rows, in}, dtype, 1), d_y = Twin::normal({rows, out}, dtype, 2);
    Twin d_w = Twin::output({std::ssize(sizes), out, in}, sums);
    run_on_both({&x, &d_y, &offsets}, {&d_w}, [&](Stream& stream, auto side) {
      run(stream, kernels::GroupedGemmBackwardWeight{.d_y = side(d_y), .x = side(x), .offsets = side(offsets), .d_w = side(d_w), .add = false});
    });
    EXPECT_TRUE(d_w.agrees(tolerance_of(sums, rows)));
  };
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    overwrite({5, 0, 1, 33, 2, 64, 0}, 24, 40, dtype);
    overwrite({5, 0, 130}, 23, 41, dtype);
    overwrite({0, 0}, 16, 8, dtype);
  }
  overwrite({500, 131, 0, 300}, 704, 1408, DType::kBf16);
  overwrite({500, 0, 131}, 1408, 512, DType::kBf16);
}

// Room that no expert has filled holds anything.
TEST(CudaGroupedGemm, LeavesRowsPastTheLastOffsetAlone) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const std::int64_t in : {64, 23}) {  // with and without the copy engine
      for (const std::int64_t used : {0, 100, 131}) {
        SCOPED_TRACE(testing::Message() << name_of(dtype) << ", in " << in << ", " << used << " rows are used");
        const std::int64_t rows = 300, out = 72;
        Twin offsets = Twin::ints({4}, {0, used / 3, used / 3, used}, DType::kI64);
        const auto spoilt = [&](std::int64_t width, std::uint64_t seed) {
          Tensor values = Tensor::empty({rows, width}, DType::kF64);
          const Random random(seed, RandomPurpose::kInit, 1);
          for (std::int64_t i = 0; i < values.numel(); ++i) values.as<double>()[i] = i / width >= used ? nan : random.normal(static_cast<std::uint64_t>(i));
          return Twin(std::move(values), dtype);
        };
        Twin x = spoilt(in, 1), d_y = spoilt(out, 3), w = Twin::normal({3, out, in}, dtype, 2);
        const DType sums = accumulation_dtype(dtype);
        Twin y = Twin::normal({rows, out}, dtype, 5), d_x = Twin::normal({rows, in}, dtype, 6), d_w = Twin::zeros({3, out, in}, sums),
             d_w_set = Twin::output({3, out, in}, sums);
        run_on_both({&x, &w, &d_y, &offsets}, {&y, &d_x, &d_w, &d_w_set}, [&](Stream& stream, auto side) {
          run(stream, kernels::GroupedGemmForward{.x = side(x), .offsets = side(offsets), .w = side(w), .y = side(y)});
          run(stream, kernels::GroupedGemmBackwardInput{.d_y = side(d_y), .offsets = side(offsets), .w = side(w), .d_x = side(d_x)});
          run(stream, kernels::GroupedGemmBackwardWeight{.d_y = side(d_y), .x = side(x), .offsets = side(offsets), .d_w = side(d_w)});
          run(stream, kernels::GroupedGemmBackwardWeight{
                          .d_y = side(d_y), .x = side(x), .offsets = side(offsets), .d_w = side(d_w_set), .add = false});
        });
        EXPECT_TRUE(y.agrees(tolerance_of(dtype, in)));
        EXPECT_TRUE(d_x.agrees(tolerance_of(dtype, out)));
        EXPECT_TRUE(d_w.agrees(tolerance_of(sums, used + 1)));
        EXPECT_TRUE(d_w_set.agrees(tolerance_of(sums, used + 1)));
      }
    }
  }
}

// A tile reads its neighbours' rows; what is in them must not matter.
TEST(CudaGroupedGemm, OtherRowsDoNotLeak) {
  const std::int64_t rows = 100, in = 64, out = 72;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    Twin offsets = Twin::ints({4}, {0, 37, 50, rows}, DType::kI64);
    const auto spoilt = [&](std::int64_t width, std::uint64_t seed) {
      Tensor values = Tensor::empty({rows, width}, DType::kF64);
      const Random random(seed, RandomPurpose::kInit, 1);
      for (std::int64_t i = 0; i < values.numel(); ++i) {
        const std::int64_t row = i / width;
        values.as<double>()[i] = row >= 37 && row < 50 ? nan : random.normal(static_cast<std::uint64_t>(i));
      }
      return Twin(std::move(values), dtype);
    };
    Twin x = spoilt(in, 1), d_y = spoilt(out, 3), w = Twin::normal({3, out, in}, dtype, 2);
    Twin y = Twin::output({rows, out}, dtype), d_x = Twin::output({rows, in}, dtype), d_w = Twin::zeros({3, out, in}, accumulation_dtype(dtype));
    run_on_both({&x, &w, &d_y, &offsets}, {&y, &d_x, &d_w}, [&](Stream& stream, auto side) {
      run(stream, kernels::GroupedGemmForward{.x = side(x), .offsets = side(offsets), .w = side(w), .y = side(y)});
      run(stream, kernels::GroupedGemmBackwardInput{.d_y = side(d_y), .offsets = side(offsets), .w = side(w), .d_x = side(d_x)});
      run(stream, kernels::GroupedGemmBackwardWeight{.d_y = side(d_y), .x = side(x), .offsets = side(offsets), .d_w = side(d_w)});
    });
    EXPECT_TRUE(y.agrees(tolerance_of(dtype, in)));
    EXPECT_TRUE(d_x.agrees(tolerance_of(dtype, out)));
    EXPECT_TRUE(d_w.agrees(tolerance_of(accumulation_dtype(dtype), rows)));
  }
}

}  // namespace
}  // namespace hadal::test
