// cuDNN's attention behind our args, in builds that have it: rows beside those of our own kernels.
#include <cmath>
#include <string>

#include "gpu_bench.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/determinism.h"

namespace hadal::bench {
namespace {

using kernels::FlashAttentionBackward;
using kernels::FlashAttentionForward;
using kernels::Heads;
using kernels::heads_of;

struct Sizes {
  const char *name, *shape;
  std::int64_t heads, kv_heads, tokens, width, shared, value;
};

void add_rows(Table& table, const Sizes& s) {
  Stream& stream = table.stream();
  const std::int64_t t = s.tokens, h = s.heads, hk = s.kv_heads, dqk = s.width + s.shared;
  const auto random = [&](std::int64_t heads, std::int64_t width, std::uint64_t seed) {
    return random_tensor(stream, {t, heads, width}, DType::kBf16, seed);
  };
  const auto empty = [&](std::int64_t heads, std::int64_t width) { return Tensor::empty({t, heads, width}, DType::kBf16, kGpu); };
  const auto all = [](Tensor& x) { return heads_of(x.view(), x.shape()[1], x.shape()[2], 0, x.shape()[2]); };
  const auto keys = [&](Tensor& x) { return heads_of(x.view(), hk, s.width + s.value, 0, s.width); };
  const auto values = [&](Tensor& x) { return heads_of(x.view(), hk, s.width + s.value, s.width, s.value); };
  Tensor q = random(h, dqk, 1), kv = random(hk, s.width + s.value, 2), k_shared = random(1, std::max<std::int64_t>(s.shared, 8), 3);
  Tensor d_o = random(h, s.value, 4), o = empty(h, s.value), lse = Tensor::empty({t, h}, DType::kF32, kGpu);
  Tensor d_q = empty(h, dqk), d_kv = empty(hk, s.width + s.value), d_k_shared = empty(1, std::max<std::int64_t>(s.shared, 8));
  const bool shared = s.shared > 0;
  const double scale = 1 / std::sqrt(static_cast<double>(dqk)), pairs = static_cast<double>(h) * static_cast<double>(t) * static_cast<double>(t);
  const auto accepted = [](bool taken) { HADAL_CHECK(taken, "cuDNN declined"); };
  const auto forward = [&] {
    accepted(kernels::cuda::cudnn_attention->forward(stream, {.q = all(q),
                                                              .k = keys(kv),
                                                              .k_shared = shared ? all(k_shared) : Heads{},
                                                              .v = values(kv),
                                                              .scale = scale,
                                                              .o = all(o),
                                                              .lse = lse}));
  };
  const auto backward = [&] {
    accepted(kernels::cuda::cudnn_attention->backward(stream, {.q = all(q),
                                                               .k = keys(kv),
                                                               .k_shared = shared ? all(k_shared) : Heads{},
                                                               .v = values(kv),
                                                               .scale = scale,
                                                               .o = all(o),
                                                               .lse = lse,
                                                               .d_o = all(d_o),
                                                               .d_q = all(d_q),
                                                               .d_k = keys(d_kv),
                                                               .d_k_shared = shared ? all(d_k_shared) : Heads{},
                                                               .d_v = values(d_kv)}));
  };
  table.add_flops(std::string(s.name) + "_forward (cuDNN)", s.shape, time_ms(stream, forward), pairs * static_cast<double>(dqk + s.value));
  table.add_flops(std::string(s.name) + "_backward (cuDNN, not deterministic)", s.shape, time_ms(stream, backward),
                  pairs * static_cast<double>(3 * dqk + 2 * s.value));
}

const RegisterBench registered{"cudnn_attention", [](Table& table) {
                                 if (kernels::cuda::cudnn_attention == nullptr) return;
                                 kernels::allow_nondeterministic(true);
                                 add_rows(table, {"mla_attention", "b1 h16 s4096 192/128", 16, 16, 4096, 128, 64, 128});
                                 add_rows(table, {"mla_attention", "b1 h128 s8192 192/128", 128, 128, 8192, 128, 64, 128});
                                 add_rows(table, {"gqa_attention", "b1 h64/4 s8192 d128", 64, 4, 8192, 128, 0, 128});
                                 kernels::allow_nondeterministic(false);
                               }};

}  // namespace
}  // namespace hadal::bench
