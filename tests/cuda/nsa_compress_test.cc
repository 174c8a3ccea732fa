// Gated pooling of NSA blocks on CUDA against the CPU in f64.
#include "tests/cuda/nsa_problem.h"

namespace hadal::test {
namespace {

using std::int64_t;

struct Case {
  int64_t batch, tokens, groups, width, length, stride, gap = 0;
  double spread = 1;  ///< of logits and positions
  int64_t blocks() const { return kernels::num_compressed(tokens, length, stride); }
};

void check_case(const Case& c, DType dtype, double tolerance) {
  SCOPED_TRACE(fmt::format("B {} S {} G {} w {} l {} d {} gap {}", c.batch, c.tokens, c.groups, c.width, c.length, c.stride, c.gap));
  const int64_t rows = c.batch * c.tokens, pooled = c.batch * c.blocks();
  HeadsTwin x = HeadsTwin::normal(rows, c.groups, c.width, c.gap, dtype, 11);
  HeadsTwin logits(Twin::normal({rows, c.groups * c.width}, dtype, 12, c.spread), c.groups, c.width, 0);
  Twin position = Twin::normal({c.length, c.width}, accumulation_dtype(dtype), 13, c.spread);
  HeadsTwin y = HeadsTwin::output(pooled, c.groups, c.width, c.gap, dtype);
  run_on_both({&x.twin, &logits.twin, &position}, {&y.twin}, [&](Stream& stream, Side side) {
    run(stream, kernels::NsaCompressForward{.batch = c.batch,
                                            .block_length = c.length,
                                            .block_stride = c.stride,
                                            .x = x.on(side),
                                            .logits = logits.on(side),
                                            .position = side(position),
                                            .y = y.on(side)});
  });
  EXPECT_TRUE(y.twin.agrees(tolerance));

  HeadsTwin d_y = HeadsTwin::normal(pooled, c.groups, c.width, c.gap, dtype, 14);
  for (const bool add : {false, true}) {
    SCOPED_TRACE(add ? "added" : "overwritten");
    HeadsTwin d_x = add ? HeadsTwin::normal(rows, c.groups, c.width, c.gap, dtype, 15) : HeadsTwin::output(rows, c.groups, c.width, c.gap, dtype);
    HeadsTwin d_logits = HeadsTwin::output(rows, c.groups, c.width, 0, dtype);
    Twin d_position = Twin::normal({c.length, c.width}, accumulation_dtype(dtype), 16);
    run_on_both({&x.twin, &logits.twin, &position, &d_y.twin}, {&d_x.twin, &d_logits.twin, &d_position}, [&](Stream& stream, Side side) {
      run(stream, kernels::NsaCompressBackward{.batch = c.batch,
                                               .block_length = c.length,
                                               .block_stride = c.stride,
                                               .x = x.on(side),
                                               .logits = logits.on(side),
                                               .position = side(position),
                                               .d_y = d_y.on(side),
                                               .d_x = d_x.on(side),
                                               .d_logits = d_logits.on(side),
                                               .d_position = side(d_position),
                                               .add_to_x = add});
    });
    EXPECT_TRUE(d_x.twin.agrees(tolerance));
    EXPECT_TRUE(d_logits.twin.agrees(tolerance));
    EXPECT_TRUE(d_position.agrees(5e-6 * std::max(1.0, c.spread / 5)));  // large exponents are rounded to larger steps
  }
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {1, 32, 1, 16, 32, 16},        // one block
      {2, 70, 2, 24, 8, 4},          // tokens behind the last block
      {1, 45, 3, 7, 6, 2, 3},        // nothing round
      {1, 61, 1, 40, 5, 5, 8},       // blocks that do not overlap
      {1, 61, 1, 40, 4, 7},          // tokens between blocks
      {2, 300, 4, 128, 32, 16},      // GQA
      {1, 2000, 1, 512, 32, 16},     // the latent
      {1, 500, 1, 64, 32, 16, 512},  // the rotated part inside wider rows
      {1, 37, 2, 8, 7, 3},           // stride that does not divide the length
      {3, 700, 2, 72, 32, 16, 8},    // several runs, the last tile of channels in part
      {24, 600, 4, 136, 32, 16, 8},  // several turns of a run, tokens behind the last block
  };
  return all;
}

TEST(CudaNsaCompress, F32EqualsTheCpu) {
  for (const Case& c : cases()) check_case(c, DType::kF32, 5e-6);
}

TEST(CudaNsaCompress, Bf16EqualsTheCpu) {
  for (const Case& c : cases()) check_case(c, DType::kBf16, tolerance_of(DType::kBf16));
}

TEST(CudaNsaCompress, LogitsAndPositionsFarApartEqualTheCpu) {
  // Products of e^logit and e^position vanish where neither is large alone: blocks that must be found another way.
  check_case({2, 200, 1, 64, 32, 16, 0, 30.0}, DType::kBf16, tolerance_of(DType::kBf16));
}

TEST(CudaNsaCompress, FewerTokensThanABlockHaveNoGradient) {
  HeadsTwin x = HeadsTwin::normal(7, 1, 16, 0, DType::kBf16, 1), logits = HeadsTwin::normal(7, 1, 16, 0, DType::kBf16, 2);
  HeadsTwin d_x = HeadsTwin::output(7, 1, 16, 0, DType::kBf16), d_logits = HeadsTwin::output(7, 1, 16, 0, DType::kBf16);
  HeadsTwin d_y = HeadsTwin::output(0, 1, 16, 0, DType::kBf16);
  Twin position = Twin::normal({8, 16}, DType::kF32, 3), d_position = Twin::normal({8, 16}, DType::kF32, 4);
  run_on_both({&x.twin, &position}, {&d_x.twin, &d_logits.twin, &d_position}, [&](Stream& stream, Side side) {
    run(stream, kernels::NsaCompressBackward{.block_length = 8,
                                             .block_stride = 4,
                                             .x = x.on(side),
                                             .logits = logits.on(side),
                                             .position = side(position),
                                             .d_y = d_y.on(side),
                                             .d_x = d_x.on(side),
                                             .d_logits = d_logits.on(side),
                                             .d_position = side(d_position)});
  });
  EXPECT_EQ(d_x.twin.error(), 0);
  EXPECT_EQ(d_logits.twin.error(), 0);
  EXPECT_LE(d_position.error(), 0);
}

}  // namespace
}  // namespace hadal::test
