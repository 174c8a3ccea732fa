// Flash attention in bf16, causal: MLA's dims with the shared rotated key, and grouped heads. Operations as spec/gpu.md 0 counts them.
#include <cmath>
#include <string>

#include "gpu_bench.h"
#include "kernels/flash_attention.h"

namespace hadal::bench {
namespace {

using kernels::FlashAttentionBackward;
using kernels::FlashAttentionForward;
using kernels::heads_of;
using kernels::Heads;

struct Sizes {
  std::int64_t heads, key_heads, tokens, width, shared, value;
  const char* shape;
};

void add_rows(Table& table, const std::string& name, const Sizes& s) {
  Stream& stream = table.stream();
  const std::int64_t t = s.tokens, h = s.heads, hk = s.key_heads, dqk = s.width + s.shared;
  const auto random = [&](Shape shape, std::uint64_t seed) { return random_tensor(stream, shape, DType::kBf16, seed); };
  const auto empty = [&](Shape shape, DType dtype = DType::kBf16) { return Tensor::empty(shape, dtype, kGpu); };
  Tensor q = random({t, h, dqk}, 1), kv = random({t, hk, s.width + s.value}, 2), k_shared = random({t, 1, s.shared}, 3);
  Tensor o = empty({t, h, s.value}), lse = empty({t, h}, DType::kF32);
  const auto all = [&](Tensor& x, std::int64_t heads, std::int64_t width) { return heads_of(x.view(), heads, width, 0, width); };
  const auto rotated = [&](Tensor& x) { return s.shared > 0 ? all(x, 1, s.shared) : Heads{}; };
  const auto key = [&](Tensor& x) { return heads_of(x.view(), hk, s.width + s.value, 0, s.width); };
  const auto value = [&](Tensor& x) { return heads_of(x.view(), hk, s.width + s.value, s.width, s.value); };
  const double scale = 1 / std::sqrt(static_cast<double>(dqk)), pairs = 0.5 * static_cast<double>(h * t * t);
  const auto forward = [&] {
    run(stream, FlashAttentionForward{.q = all(q, h, dqk),
                                      .k = key(kv),
                                      .k_shared = rotated(k_shared),
                                      .v = value(kv),
                                      .scale = scale,
                                      .o = all(o, h, s.value),
                                      .lse = lse});
  };
  table.add_flops(name + "_forward", s.shape, time_ms(stream, forward), 2 * pairs * static_cast<double>(dqk + s.value));

  Tensor d_o = random({t, h, s.value}, 4), d_q = empty({t, h, dqk}), d_kv = empty({t, hk, s.width + s.value}), d_k_shared = empty({t, 1, s.shared});
  const auto backward = [&] {
    run(stream, FlashAttentionBackward{.q = all(q, h, dqk),
                                       .k = key(kv),
                                       .k_shared = rotated(k_shared),
                                       .v = value(kv),
                                       .scale = scale,
                                       .o = all(o, h, s.value),
                                       .lse = lse,
                                       .d_o = all(d_o, h, s.value),
                                       .d_q = all(d_q, h, dqk),
                                       .d_k = key(d_kv),
                                       .d_k_shared = rotated(d_k_shared),
                                       .d_v = value(d_kv)});
  };
  table.add_flops(name + "_backward", s.shape, time_ms(stream, backward), 2 * pairs * static_cast<double>(3 * dqk + 2 * s.value));
}

const RegisterBench registered{"attention", [](Table& table) {
                                 add_rows(table, "mla_attention", {16, 16, 4096, 128, 64, 128, "b1 h16 s4096 192/128"});
                                 add_rows(table, "mla_attention", {128, 128, 8192, 128, 64, 128, "b1 h128 s8192 192/128"});
                                 add_rows(table, "mla_attention", {16, 16, 32768, 128, 64, 128, "b1 h16 s32768 192/128"});
                                 add_rows(table, "gqa_attention", {64, 4, 8192, 128, 0, 128, "b1 h64/4 s8192 d128"});
                                 add_rows(table, "gqa_attention", {64, 4, 32768, 128, 0, 128, "b1 h64/4 s32768 d128"});
                               }};
const RegisterBench registered_long{"64k_latent", [](Table& table) {
                                      add_rows(table, "mla_attention", {16, 16, 65536, 128, 64, 128, "b1 h16 s65536 192/128"});
                                    }};

}  // namespace
}  // namespace hadal::bench
