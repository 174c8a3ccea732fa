// Flash attention on CUDA in f32 against the CPU in f64: every mask, odd sizes, strided heads, shared keys, grouped heads, the
// absorbed form.
#include <limits>

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

// A bad number must reach the loss: the maximum of a row may drop it, its probability may not.
TEST(CudaFlashAttention, NanIsNotSwallowed) {
  const Case c{1, 150, 150, 1, 1, 128, 0, 128};
  Buffers x(c, DType::kF32, false);
  Tensor keys = Tensor::empty(x.k.shape(), DType::kF64);
  std::copy_n(static_cast<const double*>(x.k.host().data), keys.numel(), keys.as<double>());
  keys.as<double>()[c.width + 3] = std::numeric_limits<double>::quiet_NaN();
  Twin bad(std::move(keys), DType::kF32);
  std::swap(x.k, bad);
  forward(c, x);
  Stream gpu = stream_of(kGpu);
  const Tensor lse = to_host(gpu, x.lse.device());
  EXPECT_TRUE(std::isfinite(lse.as<float>()[0]));
  for (int64_t t = 1; t < c.tokens; ++t) EXPECT_TRUE(std::isnan(lse.as<float>()[t])) << t;
  EXPECT_TRUE(x.o.agrees(1e-5));  // NaN where the CPU has it, and only there
}

}  // namespace
}  // namespace hadal::test
