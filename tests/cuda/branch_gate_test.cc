// The gate of NSA's branches on CUDA against the CPU in f64.
#include <fmt/core.h>

#include "tests/cuda/twin.h"
#include "kernels/branch_gate.h"

namespace hadal::test {
namespace {

using std::int64_t;

void check_case(int64_t rows, int64_t heads, int64_t width, DType dtype, DType logits_dtype) {
  SCOPED_TRACE(fmt::format("T {} H {} w {}, logits {}", rows, heads, width, name_of(logits_dtype)));
  const DType sums = accumulation_dtype(dtype);
  const Shape gates{rows, 3 * heads}, values{rows, heads * width};
  Twin logits = Twin::normal(gates, logits_dtype, 1, 2.0), bias = Twin::normal({3 * heads}, sums, 2);
  Twin o0 = Twin::normal(values, dtype, 3), o1 = Twin::normal(values, dtype, 4), o2 = Twin::normal(values, dtype, 5);
  Twin g = Twin::output(gates, sums), y = Twin::output(values, dtype);
  run_on_both({&logits, &bias, &o0, &o1, &o2}, {&g, &y}, [&](Stream& stream, Side side) {
    run(stream, kernels::BranchGateForward{
                    .heads = heads, .logits = side(logits), .bias = side(bias), .o = {side(o0), side(o1), side(o2)}, .g = side(g), .y = side(y)});
  });
  EXPECT_TRUE(g.agrees(2e-6));
  EXPECT_TRUE(y.agrees(tolerance_of(dtype, 3)));

  Twin given = Twin::normal(gates, sums, 6), d_y = Twin::normal(values, dtype, 7);
  Twin d0 = Twin::output(values, dtype), d1 = Twin::output(values, dtype), d2 = Twin::output(values, dtype);
  Twin d_logits = Twin::output(gates, logits_dtype), d_bias = Twin::normal({3 * heads}, sums, 8);
  run_on_both({&given, &o0, &o1, &o2, &d_y}, {&d0, &d1, &d2, &d_logits, &d_bias}, [&](Stream& stream, Side side) {
    run(stream, kernels::BranchGateBackward{.heads = heads,
                                            .g = side(given),
                                            .o = {side(o0), side(o1), side(o2)},
                                            .d_y = side(d_y),
                                            .d_o = {side(d0), side(d1), side(d2)},
                                            .d_logits = side(d_logits),
                                            .d_bias = side(d_bias)});
  });
  for (Twin* d_o : {&d0, &d1, &d2}) EXPECT_TRUE(d_o->agrees(tolerance_of(dtype)));
  EXPECT_TRUE(d_logits.agrees(tolerance_of(logits_dtype, width)));
  EXPECT_TRUE(d_bias.agrees(tolerance_of(sums, width * rows)));
}

struct Size {
  int64_t rows, heads, width;
};

const std::vector<Size>& sizes() {
  static const std::vector<Size> all{{1, 1, 1},      {7, 3, 5},     {33, 16, 128},  {100, 5, 24}, {257, 17, 8},
                                     {300, 64, 128}, {40000, 1, 2}, {65, 128, 128}, {40, 2, 512}, {0, 4, 8}};
  return all;
}

TEST(CudaBranchGate, F32EqualsTheCpu) {
  for (const Size& s : sizes()) check_case(s.rows, s.heads, s.width, DType::kF32, DType::kF32);
}

TEST(CudaBranchGate, Bf16EqualsTheCpu) {
  for (const Size& s : sizes()) {
    for (const DType logits : {DType::kBf16, DType::kF32}) check_case(s.rows, s.heads, s.width, DType::kBf16, logits);
  }
}

}  // namespace
}  // namespace hadal::test
