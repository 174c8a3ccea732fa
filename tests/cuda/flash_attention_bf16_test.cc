// The same in bf16, where tensor cores multiply: other tiles, other tails, P and dS rounded on the way.

#include <limits>

#include "tests/cuda/attention_cases.h"

namespace hadal::test {
namespace {

TEST(CudaFlashAttentionBf16, AbsorbedFormSharesMemory) { expect_absorbed_form_agrees(DType::kBf16); }
TEST(CudaFlashAttentionBf16, DimsOffEveryVectorWidth) { expect_agree(odd_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, LatentAttentionWithASharedRotatedKey) { expect_agree(latent_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, GroupedHeads) { expect_agree(grouped_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, Windows) { expect_agree(window_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, CompressedBlocks) { expect_agree(block_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, QueriesThatStartAtAPosition) { expect_agree(start_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, HeadsInsideLargerBuffers) { expect_agree(strided_cases(), DType::kBf16); }
TEST(CudaFlashAttentionBf16, AddsToGradientsOfKeys) { expect_agree(adding_cases(), DType::kBf16, true); }

TEST(CudaFlashAttentionBf16, RowsWithoutVisibleKeyAreZero) {
  for (const Case& c : {Case{1, 200, 20, 2, 2, 128, 64, 128, blocks(90, 4)}, Case{1, 200, 20, 2, 2, 20, 0, 12, blocks(90, 4)}}) {
    Buffers x(c, DType::kBf16, false);
    forward(c, x);
    Stream gpu = stream_of(kGpu);
    const Tensor o = to_host(gpu, x.o.device()), lse = to_host(gpu, x.lse.device());
    for (int64_t i = 0; i < 89 * c.heads; ++i) ASSERT_EQ(lse.as<float>()[i], -std::numeric_limits<float>::infinity()) << i;
    for (int64_t i = 0; i < 89 * c.heads * c.value; ++i) ASSERT_EQ(to_float(o.as<Bf16>()[i]), 0.0f) << i;
    ASSERT_TRUE(std::isfinite(lse.as<float>()[89 * c.heads]));
  }
}

// Scores far from zero: the running maximum keeps every exponential in range.
TEST(CudaFlashAttentionBf16, LargeScoresStayFinite) {
  const Case c{1, 300, 300, 2, 2, 128, 64, 128};
  Buffers x(c, DType::kBf16, false);
  Twin large = Twin::normal(x.q.shape(), DType::kBf16, 1, 30.0);
  std::swap(x.q, large);
  forward(c, x);
  EXPECT_TRUE(x.o.agrees(2e-2));
}

TEST(CudaFlashAttentionBf16, NanIsNotSwallowed) { expect_nan_is_not_swallowed(DType::kBf16, 8e-3); }

}  // namespace
}  // namespace hadal::test
