// Guards: the product with gates and ups that ends in SwiGLU has the bits of the two ops on CUDA, and agrees with the CPU: widths that
// fill tiles and widths that do not, aligned or not (then it is the two ops), with and without row weights; rows behind the last expert's,
// which are not numbers, are neither used nor written.
#include "kernels/grouped_swiglu.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "core/rng.h"
#include "kernels/grouped_gemm.h"
#include "kernels/swiglu.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

using Sizes = std::vector<std::int64_t>;

/// [rows + spare, width], the spare rows of NaN.
Twin with_spare_rows(std::int64_t rows, std::int64_t spare, std::int64_t width, DType dtype, std::uint64_t seed) {
  Tensor values = Tensor::empty({rows + spare, width}, DType::kF64);
  const Random random(seed, RandomPurpose::kInit, 1);
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    values.as<double>()[i] = i < rows * width ? random.normal(static_cast<std::uint64_t>(i)) : std::numeric_limits<double>::quiet_NaN();
  }
  return {std::move(values), dtype};
}

void check(const Sizes& sizes, std::int64_t in, std::int64_t width, DType dtype, bool weighted, std::int64_t spare = 0) {
  SCOPED_TRACE(testing::Message() << name_of(dtype) << ", in " << in << " width " << width << " weighted " << weighted << " spare " << spare
                                  << ", rows " << testing::PrintToString(sizes));
  Sizes ends{0};
  for (const std::int64_t size : sizes) ends.push_back(ends.back() + size);
  const std::int64_t rows = ends.back(), experts = std::ssize(sizes);
  Twin offsets = Twin::ints({experts + 1}, ends, DType::kI64), x = with_spare_rows(rows, spare, in, dtype, 1);
  Twin w = Twin::normal({experts, 2 * width, in}, dtype, 2, 0.2), weight = with_spare_rows(rows, spare, 1, DType::kF32, 3);
  const Shape wide{rows + spare, 2 * width}, narrow{rows + spare, width};
  Twin gate_up = Twin::output(wide, dtype), gate_up_apart = Twin::output(wide, dtype);
  Twin h = Twin::output(narrow, dtype), h_apart = Twin::output(narrow, dtype);
  run_on_both({&x, &w, &weight, &offsets}, {&gate_up, &h, &gate_up_apart, &h_apart}, [&](Stream& stream, Side side) {
    const ConstView row_weight = weighted ? ConstView(side(weight).reshape({rows + spare})) : ConstView();
    run(stream, kernels::GroupedSwigluForward{
                    .x = side(x), .offsets = side(offsets), .w = side(w), .row_weight = row_weight, .gate_up = side(gate_up), .h = side(h)});
    const View apart = side(gate_up_apart).rows(0, rows);
    run(stream, kernels::GroupedGemmForward{.x = side(x).rows(0, rows), .offsets = side(offsets), .w = side(w), .y = apart});
    run(stream, kernels::SwigluForward{
                    .gate_up = apart, .row_weight = weighted ? row_weight.rows(0, rows) : row_weight, .h = side(h_apart).rows(0, rows)});
  });
  EXPECT_EQ(gate_up.device_bytes(), gate_up_apart.device_bytes());
  EXPECT_EQ(h.device_bytes(), h_apart.device_bytes());
  EXPECT_TRUE(gate_up.agrees(tolerance_of(dtype, in)));
  EXPECT_TRUE(h.agrees(4 * tolerance_of(dtype, in)));  // a product of gate, up and weight
}

void check_all(const Sizes& sizes, std::int64_t in, std::int64_t width) {
  for (const bool weighted : {false, true}) {
    check(sizes, in, width, DType::kF32, weighted, 3);
    check(sizes, in, width, DType::kBf16, weighted);
    check(sizes, in, width, DType::kBf16, weighted, 70);
  }
}

TEST(CudaGroupedSwiglu, SmallAndEmptyExperts) {
  check_all({5, 0, 1, 33, 2, 64, 0}, 24, 40);
  check_all({0, 0, 7}, 8, 8);
  check_all({1}, 1, 1);
  check({0, 0}, 16, 8, DType::kBf16, true, 40);
}

// Odd widths, and one where gates start at 16 bytes and ups do not.
TEST(CudaGroupedSwiglu, UnalignedWidths) {
  check_all({5, 0, 1, 33, 130}, 23, 41);
  check_all({40, 90}, 64, 36);
}

TEST(CudaGroupedSwiglu, AroundTheSizesOfTiles) {
  const Sizes sizes{63, 64, 65, 127, 0, 128, 129, 255, 256, 257, 15, 16, 17};
  check_all(sizes, 256, 128);
  check_all(sizes, 72, 200);
  check_all(sizes, 200, 264);
}

TEST(CudaGroupedSwiglu, ModelWidths) {
  check({500, 131, 0, 900}, 704, 1408, DType::kBf16, true);
  check({2300, 1}, 512, 768, DType::kBf16, true, 100);
}

}  // namespace
}  // namespace hadal::test
