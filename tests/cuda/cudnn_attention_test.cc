// cuDNN's attention behind flash attention's args, in builds that have it: MLA's shared key, grouped heads, slices of larger buffers, odd
// lengths; and what it must leave to our own kernels.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/cudnn_attention.h"
#include "kernels/determinism.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

using kernels::FlashAttentionBackward;
using kernels::FlashAttentionForward;
using kernels::Heads;
using kernels::heads_of;

struct Sizes {
  std::int64_t batch, rows, heads, kv_heads, width, shared, value;
};

/// All tensors of an attention; k and v are slices of one buffer, and so are their gradients.
struct Attention {
  explicit Attention(const Sizes& sizes) : s(sizes) {}

  Heads all(View x, std::int64_t heads, std::int64_t width) const { return heads_of(x, heads, width, 0, width); }
  Heads keys(View x) const { return heads_of(x, s.kv_heads, s.width + s.value, 0, s.width); }
  Heads values(View x) const { return heads_of(x, s.kv_heads, s.width + s.value, s.width, s.value); }
  Heads shared(View x) const { return s.shared > 0 ? all(x, 1, s.shared) : Heads{}; }

  FlashAttentionForward forward(Side side) {
    return {.batch = s.batch,
            .q = all(side(q), s.heads, s.width + s.shared),
            .k = keys(side(kv)),
            .k_shared = shared(side(k_shared)),
            .v = values(side(kv)),
            .scale = scale,
            .o = all(side(o), s.heads, s.value),
            .lse = side(lse)};
  }
  FlashAttentionBackward backward(Side side) {
    return {.batch = s.batch,
            .q = all(side(q), s.heads, s.width + s.shared),
            .k = keys(side(kv)),
            .k_shared = shared(side(k_shared)),
            .v = values(side(kv)),
            .scale = scale,
            .o = all(side(o), s.heads, s.value),
            .lse = side(lse),
            .d_o = all(side(d_o), s.heads, s.value),
            .d_q = all(side(d_q), s.heads, s.width + s.shared),
            .d_k = keys(side(d_kv)),
            .d_k_shared = shared(side(d_k_shared)),
            .d_v = values(side(d_kv))};
  }

  Sizes s;
  std::int64_t t = s.batch * s.rows;
  double scale = 1 / std::sqrt(static_cast<double>(s.width + s.shared));
  Twin q = Twin::normal({t, s.heads, s.width + s.shared}, DType::kBf16, 1);
  Twin kv = Twin::normal({t, s.kv_heads, s.width + s.value}, DType::kBf16, 2);
  Twin k_shared = Twin::normal({t, 1, std::max<std::int64_t>(s.shared, 1)}, DType::kBf16, 3);
  Twin o = Twin::output({t, s.heads, s.value}, DType::kBf16), lse = Twin::output({t, s.heads}, DType::kF32);
  Twin d_o = Twin::normal({t, s.heads, s.value}, DType::kBf16, 4);
  Twin d_q = Twin::output({t, s.heads, s.width + s.shared}, DType::kBf16);
  Twin d_kv = Twin::output({t, s.kv_heads, s.width + s.value}, DType::kBf16);
  Twin d_k_shared = Twin::output({t, 1, std::max<std::int64_t>(s.shared, 1)}, DType::kBf16);
};

constexpr Sizes kCases[] = {
    {1, 256, 4, 4, 128, 64, 128}, {2, 200, 3, 3, 128, 64, 128}, {1, 1024, 16, 16, 128, 64, 128}, {1, 512, 8, 1, 128, 0, 128}, {3, 77, 8, 2, 64, 0, 64},
};

class CudnnAttention : public testing::Test {
 protected:
  void SetUp() override {
    if (kernels::cuda::cudnn_attention == nullptr) GTEST_SKIP() << "this build has no cuDNN attention";
  }
  void TearDown() override { kernels::allow_nondeterministic(false); }
  const kernels::cuda::CudnnAttention& ask() { return *kernels::cuda::cudnn_attention; }

  Stream cpu_ = Stream(kCpu), gpu_ = stream_of(kGpu);
};

TEST_F(CudnnAttention, ForwardAgreesTwiceTheSame) {
  for (const Sizes& sizes : kCases) {
    Attention x(sizes);
    run_on_both({&x.q, &x.kv, &x.k_shared}, {&x.o, &x.lse}, [&](Stream& stream, Side side) {
      if (side.on_device) {
        ASSERT_TRUE(ask().forward(stream, x.forward(side))) << "heads " << sizes.heads << ", rows " << sizes.rows;
      } else {
        run(stream, x.forward(side));
      }
    });
    EXPECT_TRUE(x.o.agrees(1e-2));
    EXPECT_TRUE(x.lse.agrees(1e-4));
  }
}

TEST_F(CudnnAttention, BackwardAgrees) {
  kernels::allow_nondeterministic(true);
  for (const Sizes& sizes : kCases) {
    Attention x(sizes);
    run(cpu_, x.forward({false}));
    run(cpu_, x.backward({false}));
    ASSERT_TRUE(ask().forward(gpu_, x.forward({true})));
    ASSERT_TRUE(ask().backward(gpu_, x.backward({true}))) << "heads " << sizes.heads << ", rows " << sizes.rows;
    EXPECT_TRUE(x.d_q.agrees(2e-2));
    EXPECT_TRUE(x.d_kv.agrees(2e-2));
    if (sizes.shared > 0) {
      EXPECT_TRUE(x.d_k_shared.agrees(2e-2));
    }
    for (Twin* twin : {&x.d_q, &x.d_kv, &x.d_k_shared}) EXPECT_TRUE(twin->guards_intact());
  }
}

TEST_F(CudnnAttention, DeclinesWhatItMustNotDo) {
  Attention x(kCases[0]);
  ASSERT_TRUE(ask().forward(gpu_, x.forward({true})));
  EXPECT_FALSE(ask().backward(gpu_, x.backward({true}))) << "nobody allowed bits that differ from run to run";
  kernels::allow_nondeterministic(true);
  FlashAttentionBackward adding = x.backward({true});
  adding.add_to_keys = true;
  EXPECT_FALSE(ask().backward(gpu_, adding));
  FlashAttentionForward window = x.forward({true});
  window.mask.window = 64;
  EXPECT_FALSE(ask().forward(gpu_, window));
  FlashAttentionForward later = x.forward({true});
  later.query_start = 8;
  EXPECT_FALSE(ask().forward(gpu_, later));
}

}  // namespace
}  // namespace hadal::test
