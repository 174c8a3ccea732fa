// Flash attention on CUDA in f32 against the CPU in f64: every mask, odd sizes, strided heads, shared keys, grouped heads, the
// absorbed form.

#include "tests/cuda/attention_cases.h"

namespace hadal::test {
namespace {

TEST(CudaFlashAttention, DimsOffEveryVectorWidth) { expect_agree(odd_cases(), DType::kF32); }
TEST(CudaFlashAttention, LatentAttentionWithASharedRotatedKey) { expect_agree(latent_cases(), DType::kF32); }
TEST(CudaFlashAttention, GroupedHeads) { expect_agree(grouped_cases(), DType::kF32); }
TEST(CudaFlashAttention, Windows) { expect_agree(window_cases(), DType::kF32); }
TEST(CudaFlashAttention, CompressedBlocks) { expect_agree(block_cases(), DType::kF32); }
TEST(CudaFlashAttention, QueriesThatStartAtAPosition) { expect_agree(start_cases(), DType::kF32); }
TEST(CudaFlashAttention, HeadsInsideLargerBuffers) { expect_agree(strided_cases(), DType::kF32); }
TEST(CudaFlashAttention, AddsToGradientsOfKeys) { expect_agree(adding_cases(), DType::kF32, true); }
TEST(CudaFlashAttention, AbsorbedFormSharesMemory) { expect_absorbed_form_agrees(DType::kF32); }

TEST(CudaFlashAttention, NanIsNotSwallowed) { expect_nan_is_not_swallowed(DType::kF32, 1e-5); }

}  // namespace
}  // namespace hadal::test
