// Attention ops at the sizes of a small MLA model and of the quickstart's NSA: useful arithmetic (visible pairs only) over peak.
#include <fmt/core.h>

#include <functional>
#include <string>

#include "bench.h"
#include "kernels/flash_attention.h"
#include "kernels/nsa.h"

namespace hadal::bench {
namespace {

using kernels::AttentionMask;
using kernels::heads_of;
using std::int64_t;

struct Sizes {
  const char* name;
  int64_t batch, tokens, heads, key_heads, width, shared, value;
  int64_t window = 0;
  int64_t length = 0, stride = 0, select = 0, chosen = 0;  // NSA
};

// Buffers and args of one case. Keys and values are slices of one packed buffer, as the up-projection of MLA leaves them.
template <class T>
struct Problem {
  explicit Problem(const Sizes& s, int64_t keys)
      : sizes(s),
        rows(s.batch * s.tokens),
        key_rows(s.batch * keys),
        q(filled<T>({rows, s.heads * (s.width + s.shared)}, 1)),
        kv(filled<T>({std::max<int64_t>(key_rows, 1), s.key_heads * (s.width + s.value)}, 2)),
        k_shared(filled<T>({std::max<int64_t>(key_rows, 1), std::max<int64_t>(s.shared, 1)}, 3)),
        d_o(filled<T>({rows, s.heads * s.value}, 4)),
        o(filled<T>({rows, s.heads * s.value}, 5)),
        lse(filled<T>({rows, s.heads}, 6)),
        d_q(filled<T>(q.shape(), 7)),
        d_kv(filled<T>(kv.shape(), 8)),
        d_k_shared(filled<T>(k_shared.shape(), 9)) {}

  template <class Args>
  void inputs(Args& args) const {
    const int64_t w = sizes.width, ws = sizes.shared, dv = sizes.value, hk = sizes.key_heads;
    args.batch = sizes.batch;
    args.q = heads_of(q.view(), sizes.heads, w + ws, 0, w + ws);
    args.k = heads_of(kv.view(), hk, w + dv, 0, w);
    if (ws > 0) args.k_shared = heads_of(k_shared.view(), 1, ws, 0, ws);
    args.scale = 0.14;
    if constexpr (requires { args.v; }) args.v = heads_of(kv.view(), hk, w + dv, w, dv);
  }
  template <class Args>
  void outputs(Args& args) {
    args.o = heads_of(o.view(), sizes.heads, sizes.value, 0, sizes.value);
    args.lse = lse;
  }
  template <class Args>
  void gradients(Args& args) {
    const int64_t w = sizes.width, ws = sizes.shared, dv = sizes.value, hk = sizes.key_heads;
    args.d_o = heads_of(d_o.view(), sizes.heads, dv, 0, dv);
    args.d_q = heads_of(d_q.view(), sizes.heads, w + ws, 0, w + ws);
    args.d_k = heads_of(d_kv.view(), hk, w + dv, 0, w);
    args.d_v = heads_of(d_kv.view(), hk, w + dv, w, dv);
    if (ws > 0) args.d_k_shared = heads_of(d_k_shared.view(), 1, ws, 0, ws);
  }

  Sizes sizes;
  int64_t rows, key_rows;
  Tensor q, kv, k_shared, d_o, o, lse, d_q, d_kv, d_k_shared;
};

// Multiply-adds of one (query, key, head) pair: two products forward, five backward.
double pair_flops(const Sizes& s, bool backward) {
  const auto qk = static_cast<double>(s.width + s.shared), dv = static_cast<double>(s.value);
  return backward ? 2 * (3 * qk + 2 * dv) : 2 * (qk + dv);
}

double causal_pairs(const Sizes& s) {
  double pairs = 0;
  for (int64_t t = 0; t < s.tokens; ++t) pairs += static_cast<double>(s.window > 0 ? std::min(t + 1, s.window) : t + 1);
  return pairs * static_cast<double>(s.batch * s.heads);
}

template <class T>
void flash(benchmark::State& state, const Sizes& s, bool backward) {
  Problem<T> p(s, s.tokens);
  Stream stream;
  kernels::FlashAttentionForward forward_args{};
  p.inputs(forward_args);
  p.outputs(forward_args);
  forward_args.mask.window = s.window;
  run(stream, forward_args);
  kernels::FlashAttentionBackward backward_args{};
  p.inputs(backward_args);
  p.outputs(backward_args);
  p.gradients(backward_args);
  backward_args.mask.window = s.window;
  const double seconds = best_of(state, [&] {
    if (backward) {
      run(stream, backward_args);
    } else {
      run(stream, forward_args);
    }
  });
  report_flops(state, kDTypeOf<T>, causal_pairs(s) * pair_flops(s, backward), seconds);
}

// One new token against a cache of s.tokens: bound by reading keys and values once.
template <class T>
void decode(benchmark::State& state, const Sizes& s) {
  Sizes one = s;
  one.tokens = 1;
  Problem<T> p(one, s.tokens);
  Stream stream;
  kernels::FlashAttentionForward args{};
  p.inputs(args);
  p.outputs(args);
  args.query_start = s.tokens - 1;
  const double seconds = best_of(state, [&] { run(stream, args); });
  const int64_t elements = s.tokens * (s.key_heads * (s.width + s.value) + s.shared);
  report_bytes(state, static_cast<double>(elements) * sizeof(T), seconds);
}

enum class Part { kCompress, kCompressBackward, kCompressed, kCompressedBackward, kSelect, kSelected, kSelectedBackward };

// One branch of NSA; selection runs for real, on random keys.
template <class T>
void nsa(benchmark::State& state, const Sizes& s, Part part) {
  const int64_t count = kernels::num_compressed(s.tokens, s.length, s.stride);
  Problem<T> raw(s, s.tokens), compressed(s, count);
  Stream stream;
  kernels::FlashAttentionForward cmp{};
  compressed.inputs(cmp);
  compressed.outputs(cmp);
  cmp.mask = {.kind = AttentionMask::Kind::kBlocks, .block_length = s.length, .block_stride = s.stride};
  run(stream, cmp);
  kernels::FlashAttentionBackward cmp_back{};
  compressed.inputs(cmp_back);
  compressed.outputs(cmp_back);
  compressed.gradients(cmp_back);
  cmp_back.mask = cmp.mask;
  Tensor blocks = Tensor::zeros({raw.rows, 1, s.chosen}, DType::kI32);
  kernels::NsaSelect select{};
  compressed.inputs(select);
  select.lse = compressed.lse;
  select.block_length = s.length;
  select.block_stride = s.stride;
  select.select_block = s.select;
  select.blocks = blocks;
  run(stream, select);
  kernels::NsaSelectedForward selected{};
  raw.inputs(selected);
  raw.outputs(selected);
  selected.blocks = blocks;
  selected.select_block = s.select;
  run(stream, selected);
  kernels::NsaSelectedBackward selected_back{};
  raw.inputs(selected_back);
  raw.outputs(selected_back);
  raw.gradients(selected_back);
  selected_back.blocks = blocks;
  selected_back.select_block = s.select;
  const int64_t latent = 64;
  const Tensor x = filled<T>({raw.rows, latent}, 11), logits = filled<T>({raw.rows, latent}, 12);
  const Tensor position = filled<T>({s.length, latent}, 13);
  Tensor y = filled<T>({compressed.key_rows, latent}, 14), d_x = filled<T>(x.shape(), 15), d_logits = filled<T>(x.shape(), 16);
  Tensor d_position = filled<T>(position.shape(), 17);
  const auto matrix = [&](auto&& tensor) { return heads_of(tensor, 1, latent, 0, latent); };
  const kernels::NsaCompressForward compress{.batch = s.batch,
                                             .block_length = s.length,
                                             .block_stride = s.stride,
                                             .x = matrix(x.view()),
                                             .logits = matrix(logits.view()),
                                             .position = position,
                                             .y = matrix(y.view())};
  const kernels::NsaCompressBackward compress_back{.batch = s.batch,
                                                   .block_length = s.length,
                                                   .block_stride = s.stride,
                                                   .x = matrix(x.view()),
                                                   .logits = matrix(logits.view()),
                                                   .position = position,
                                                   .d_y = matrix(static_cast<ConstView>(y.view())),
                                                   .d_x = matrix(d_x.view()),
                                                   .d_logits = matrix(d_logits.view()),
                                                   .d_position = d_position};

  double cmp_pairs = 0, selected_pairs = 0;
  for (int64_t t = 0; t < s.tokens; ++t) {
    cmp_pairs += static_cast<double>(t < s.length - 1 ? 0 : std::min(count, (t - s.length + 1) / s.stride + 1));
    const int64_t own = t / s.select;
    selected_pairs += static_cast<double>(std::min(own, s.chosen - 1) * s.select + t % s.select + 1);
  }
  const auto head_rows = static_cast<double>(s.batch * s.heads);
  const auto pooled = static_cast<double>(compressed.key_rows * s.length * latent);
  double flops = 0;
  std::function<void()> body;
  switch (part) {
    case Part::kCompress:
      flops = 4 * pooled;
      body = [&] { run(stream, compress); };
      break;
    case Part::kCompressBackward:
      flops = 10 * pooled;
      body = [&] { run(stream, compress_back); };
      break;
    case Part::kCompressed:
      flops = cmp_pairs * head_rows * pair_flops(s, false);
      body = [&] { run(stream, cmp); };
      break;
    case Part::kCompressedBackward:
      flops = cmp_pairs * head_rows * pair_flops(s, true);
      body = [&] { run(stream, cmp_back); };
      break;
    case Part::kSelect:
      flops = cmp_pairs * head_rows * 2 * static_cast<double>(s.width + s.shared);
      body = [&] { run(stream, select); };
      break;
    case Part::kSelected:
      flops = selected_pairs * head_rows * pair_flops(s, false);
      body = [&] { run(stream, selected); };
      break;
    case Part::kSelectedBackward:
      flops = selected_pairs * head_rows * pair_flops(s, true);
      body = [&] { run(stream, selected_back); };
      break;
  }
  const double seconds = best_of(state, body);
  report_flops(state, kDTypeOf<T>, flops, seconds);
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& body, int64_t iterations = 12) {
  benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->Iterations(iterations)->Unit(benchmark::kMicrosecond);
}

const bool registered = [] {
  const Sizes small{
      .name = "mla_8x512", .batch = 8, .tokens = 512, .heads = 8, .key_heads = 8, .width = 32, .shared = 16, .value = 32};
  Sizes window = small, absorbed = small, grouped = small;
  window.name = "window_128";
  window.window = 128;
  absorbed = {.name = "absorbed", .batch = 1, .tokens = 512, .heads = 8, .key_heads = 1, .width = 64, .shared = 16, .value = 64};
  grouped = {.name = "gqa_1x2048", .batch = 1, .tokens = 2048, .heads = 8, .key_heads = 2, .width = 64, .shared = 0, .value = 64};
  for (const Sizes& s : {small, window, absorbed, grouped}) {
    for (const bool backward : {false, true}) {
      const char* const pass = backward ? "backward" : "forward";
      add(fmt::format("flash_attention/f32/{}/{}", s.name, pass),
          [=](benchmark::State& state) { flash<float>(state, s, backward); });
    }
  }
  for (Sizes s : {absorbed, grouped}) {
    s.tokens = 2048;
    add(
        fmt::format("flash_attention/f32/{}/decode_2048", s.name), [=](benchmark::State& state) { decode<float>(state, s); },
        200);
  }
  add("flash_attention/f64/mla_8x512/forward", [=](benchmark::State& state) { flash<double>(state, small, false); });
  add("flash_attention/f64/mla_8x512/backward", [=](benchmark::State& state) { flash<double>(state, small, true); });

  const Sizes quick{.name = "8x256",
                    .batch = 8,
                    .tokens = 256,
                    .heads = 4,
                    .key_heads = 4,
                    .width = 32,
                    .shared = 16,
                    .value = 32,
                    .length = 16,
                    .stride = 8,
                    .select = 16,
                    .chosen = 8};
  const Sizes long_one{.name = "1x4096",
                       .batch = 1,
                       .tokens = 4096,
                       .heads = 8,
                       .key_heads = 8,
                       .width = 32,
                       .shared = 16,
                       .value = 32,
                       .length = 32,
                       .stride = 16,
                       .select = 64,
                       .chosen = 16};
  for (const Sizes& s : {quick, long_one}) {
    for (const auto& [part, name] : {std::pair{Part::kCompress, "compress"},
                                     {Part::kCompressBackward, "compress_backward"},
                                     {Part::kCompressed, "compressed"},
                                     {Part::kCompressedBackward, "compressed_backward"},
                                     {Part::kSelect, "select"},
                                     {Part::kSelected, "selected"},
                                     {Part::kSelectedBackward, "selected_backward"}}) {
      add(
          fmt::format("nsa/f32/{}/{}", s.name, name), [=](benchmark::State& state) { nsa<float>(state, s, part); },
          s.tokens < 1000 ? 200 : 12);
    }
  }
  return true;
}();

}  // namespace
}  // namespace hadal::bench
