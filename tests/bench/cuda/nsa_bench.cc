// Native sparse attention at the sizes of spec/gpu.md 14: 64 heads over 4 key heads of 128, compression 32/16, blocks of 64, 16 chosen.
// Operations are those of the keys that are seen: 4 d a pair forward (2 d more for the importance), 10 d backward.
#include <fmt/core.h>

#include "gpu_bench.h"
#include "kernels/branch_gate.h"
#include "kernels/flash_attention.h"
#include "kernels/nsa.h"

namespace hadal::bench {
namespace {

using kernels::heads_of;
using std::int64_t;

constexpr int64_t kHeads = 64, kKeyHeads = 4, kWidth = 128, kLength = 32, kStride = 16, kSelect = 64, kChosen = 16;

// Keys of the chosen blocks up to each query, over all heads.
double selected_pairs(Stream& stream, ConstView blocks, int64_t tokens) {
  const Tensor host = to_host(stream, blocks);
  const auto* const list = host.as<std::int32_t>();
  double pairs = 0;
  for (int64_t i = 0; i < host.numel(); ++i) {
    const int64_t t = i / (kKeyHeads * kChosen) % tokens;
    if (list[i] >= 0) pairs += static_cast<double>(std::min(kSelect, t + 1 - list[i] * kSelect));
  }
  return pairs * kHeads / kKeyHeads;
}

double compressed_pairs(int64_t tokens) {
  double pairs = 0;
  for (int64_t t = 0; t < tokens; ++t) pairs += static_cast<double>(kernels::num_compressed(t + 1, kLength, kStride));
  return pairs * kHeads;
}

enum class Rows { kBranches, kCompressedBackward };

void bench_length(Table& table, int64_t tokens, Rows which) {
  Stream& stream = table.stream();
  const std::string shape = fmt::format("b1 h{}/{} s{} d{}", kHeads, kKeyHeads, tokens, kWidth);
  const int64_t entries = kernels::num_compressed(tokens, kLength, kStride), rows = kHeads * kWidth, key_rows = kKeyHeads * kWidth;
  const double scale = 0.08838834764831845;
  const Tensor q = random_tensor(stream, {tokens, rows}, DType::kBf16, 1), d_o = random_tensor(stream, {tokens, rows}, DType::kBf16, 2);
  const Tensor k = random_tensor(stream, {tokens, key_rows}, DType::kBf16, 3), v = random_tensor(stream, {tokens, key_rows}, DType::kBf16, 4);
  const Tensor pooled_k = random_tensor(stream, {entries, key_rows}, DType::kBf16, 5),
               pooled_v = random_tensor(stream, {entries, key_rows}, DType::kBf16, 6);
  Tensor o = Tensor::empty({tokens, rows}, DType::kBf16, kGpu), d_q = Tensor::empty({tokens, rows}, DType::kBf16, kGpu);
  Tensor d_k = Tensor::empty({tokens, key_rows}, DType::kBf16, kGpu), d_v = Tensor::empty({tokens, key_rows}, DType::kBf16, kGpu);
  Tensor lse = Tensor::empty({tokens, kHeads}, DType::kF32, kGpu), blocks = Tensor::empty({tokens, kKeyHeads, kChosen}, DType::kI32, kGpu);
  const auto queries = [](auto&& x) { return heads_of(x.view(), kHeads, kWidth, 0, kWidth); };
  const auto keys = [](auto&& x) { return heads_of(x.view(), kKeyHeads, kWidth, 0, kWidth); };
  const kernels::AttentionMask mask{.kind = kernels::AttentionMask::Kind::kBlocks, .block_length = kLength, .block_stride = kStride};

  const auto compressed = [&] {
    run(stream, kernels::FlashAttentionForward{
                    .q = queries(q), .k = keys(pooled_k), .v = keys(pooled_v), .mask = mask, .scale = scale, .o = queries(o), .lse = lse});
  };
  const auto select = [&] {
    run(stream, kernels::NsaSelect{.q = queries(q),
                                   .k = keys(pooled_k),
                                   .lse = lse,
                                   .scale = scale,
                                   .block_length = kLength,
                                   .block_stride = kStride,
                                   .select_block = kSelect,
                                   .num_groups = kKeyHeads,
                                   .blocks = blocks});
  };
  const double pairs = compressed_pairs(tokens);
  if (which == Rows::kCompressedBackward) {
    Tensor d_pooled_k = Tensor::empty({entries, key_rows}, DType::kBf16, kGpu), d_pooled_v = Tensor::empty({entries, key_rows}, DType::kBf16, kGpu);
    compressed();
    table.add_flops("nsa_compressed_backward", shape,
                    time_ms(stream,
                            [&] {
                              run(stream, kernels::FlashAttentionBackward{.q = queries(q),
                                                                          .k = keys(pooled_k),
                                                                          .v = keys(pooled_v),
                                                                          .mask = mask,
                                                                          .scale = scale,
                                                                          .o = queries(o),
                                                                          .lse = lse,
                                                                          .d_o = queries(d_o),
                                                                          .d_q = queries(d_q),
                                                                          .d_k = keys(d_pooled_k),
                                                                          .d_v = keys(d_pooled_v)});
                            }),
                    10 * kWidth * pairs);
    return;
  }
  table.add_flops("nsa_compressed_select", shape,
                  time_ms(stream,
                          [&] {
                            compressed();
                            select();
                          }),
                  6 * kWidth * pairs);
  table.add_flops("nsa_select", shape, time_ms(stream, select), 2 * kWidth * pairs);
  const double chosen = selected_pairs(stream, blocks, tokens);
  const auto selected = [&] {
    run(stream,
        kernels::NsaSelectedForward{
            .q = queries(q), .k = keys(k), .v = keys(v), .blocks = blocks, .select_block = kSelect, .scale = scale, .o = queries(o), .lse = lse});
  };
  table.add_flops("nsa_selected_forward", shape, time_ms(stream, selected), 4 * kWidth * chosen);
  table.add_flops("nsa_selected_backward", shape,
                  time_ms(stream,
                          [&] {
                            run(stream, kernels::NsaSelectedBackward{.q = queries(q),
                                                                     .k = keys(k),
                                                                     .v = keys(v),
                                                                     .blocks = blocks,
                                                                     .select_block = kSelect,
                                                                     .scale = scale,
                                                                     .o = queries(o),
                                                                     .lse = lse,
                                                                     .d_o = queries(d_o),
                                                                     .d_q = queries(d_q),
                                                                     .d_k = keys(d_k),
                                                                     .d_v = keys(d_v)});
                          }),
                  10 * kWidth * chosen);
}

void bench_branches(Table& table) {
  for (const int64_t tokens : {8192, 32768}) bench_length(table, tokens, Rows::kBranches);
}
void bench_compressed_backward(Table& table) {
  for (const int64_t tokens : {8192, 32768}) bench_length(table, tokens, Rows::kCompressedBackward);
}
// By names of their own: a filter for the rest does not wait for them.
constexpr int64_t kLong = 65536;
void bench_long_branches(Table& table) { bench_length(table, kLong, Rows::kBranches); }
void bench_long_compressed_backward(Table& table) { bench_length(table, kLong, Rows::kCompressedBackward); }

// The selected branch of MLA: keys per head, and absorbed. Every token reads 16 blocks at random.
struct MlaForm {
  const char* shape;
  int64_t batch, tokens, key_heads, key_width, value_width;
};

void bench_mla(Table& table) {
  Stream& stream = table.stream();
  constexpr int64_t kMlaHeads = 16, kRotated = 64;
  for (const MlaForm& form :
       {MlaForm{"b4 h16/16 s4096 128+64/128", 4, 4096, 16, 128, 128}, MlaForm{"b1 h16/16 s32768 128+64/128", 1, 32768, 16, 128, 128},
        MlaForm{"b1 h16/1 s16384 512+64/512", 1, 16384, 1, 512, 512}}) {
    const int64_t rows = form.batch * form.tokens, width = form.key_width + kRotated;
    const auto values = [&](int64_t heads, int64_t head_width, std::uint64_t seed) {
      return random_tensor(stream, {rows, heads * head_width}, DType::kBf16, seed);
    };
    const auto heads = [](auto&& x, int64_t count) { return heads_of(x.view(), count, x.shape()[1] / count, 0, x.shape()[1] / count); };
    const Tensor q = values(kMlaHeads, width, 1), k = values(form.key_heads, form.key_width, 2), k_shared = values(1, kRotated, 3);
    const Tensor v = values(form.key_heads, form.value_width, 4), d_o = values(kMlaHeads, form.value_width, 5);
    Tensor o = values(kMlaHeads, form.value_width, 6), d_q = q.clone(), d_k = k.clone(), d_shared = k_shared.clone(), d_v = v.clone();
    Tensor lse = Tensor::zeros({rows, kMlaHeads}, DType::kF32, kGpu), blocks = Tensor::empty({rows, 1, kChosen}, DType::kI32, kGpu);
    const int64_t entries = kernels::num_compressed(form.tokens, kLength, kStride);
    const auto pooled = [&](const Tensor& x) { return x.view().rows(0, form.batch * entries); };
    const double scale = 0.02;
    const auto select = [&] {
      run(stream, kernels::NsaSelect{.batch = form.batch,
                                     .q = heads(q, kMlaHeads),
                                     .k = heads_of(pooled(k), form.key_heads, form.key_width, 0, form.key_width),
                                     .k_shared = heads_of(pooled(k_shared), 1, kRotated, 0, kRotated),
                                     .lse = lse,
                                     .scale = scale,
                                     .block_length = kLength,
                                     .block_stride = kStride,
                                     .select_block = kSelect,
                                     .blocks = blocks});
    };
    double pairs = 0, compressed = 0;
    for (int64_t t = 0; t < form.tokens; ++t) compressed += static_cast<double>(kernels::num_compressed(t + 1, kLength, kStride));
    compressed *= static_cast<double>(form.batch * kMlaHeads);
    table.add_flops("nsa_select", form.shape, time_ms(stream, select), 2 * static_cast<double>(width) * compressed);
    const Tensor lists = to_host(stream, blocks);
    for (int64_t i = 0; i < lists.numel(); ++i) {
      const int64_t block = lists.as<std::int32_t>()[i];
      if (block >= 0) pairs += static_cast<double>(std::min(kSelect, i / kChosen % form.tokens + 1 - block * kSelect));
    }
    pairs *= kMlaHeads;
    const auto forward = [&] {
      run(stream, kernels::NsaSelectedForward{.batch = form.batch,
                                              .q = heads(q, kMlaHeads),
                                              .k = heads(k, form.key_heads),
                                              .k_shared = heads(k_shared, 1),
                                              .v = heads(v, form.key_heads),
                                              .blocks = blocks,
                                              .select_block = kSelect,
                                              .scale = scale,
                                              .o = heads(o, kMlaHeads),
                                              .lse = lse});
    };
    const double sum = static_cast<double>(width + form.value_width);
    table.add_flops("nsa_selected_forward", form.shape, time_ms(stream, forward), 2 * sum * pairs);
    table.add_flops("nsa_selected_backward", form.shape,
                    time_ms(stream,
                            [&] {
                              run(stream, kernels::NsaSelectedBackward{.batch = form.batch,
                                                                       .q = heads(q, kMlaHeads),
                                                                       .k = heads(k, form.key_heads),
                                                                       .k_shared = heads(k_shared, 1),
                                                                       .v = heads(v, form.key_heads),
                                                                       .blocks = blocks,
                                                                       .select_block = kSelect,
                                                                       .scale = scale,
                                                                       .o = heads(o, kMlaHeads),
                                                                       .lse = lse,
                                                                       .d_o = heads(d_o, kMlaHeads),
                                                                       .d_q = heads(d_q, kMlaHeads),
                                                                       .d_k = heads(d_k, form.key_heads),
                                                                       .d_k_shared = heads(d_shared, 1),
                                                                       .d_v = heads(d_v, form.key_heads)});
                            }),
                    (6 * static_cast<double>(width) + 4 * static_cast<double>(form.value_width)) * pairs);
  }
}

// The compressed branch's backward of MLA, keys per head: each head has the few pooled keys of its own.
void bench_mla_compressed_backward(Table& table) {
  Stream& stream = table.stream();
  constexpr int64_t kMlaHeads = 16, kRotated = 64, kAll = kWidth + kRotated;
  for (const MlaForm& form :
       {MlaForm{"b4 h16/16 s4096 128+64/128", 4, 4096, 16, 128, 128}, MlaForm{"b1 h16/16 s16384 128+64/128", 1, 16384, 16, 128, 128}}) {
    const int64_t rows = form.batch * form.tokens, pooled = form.batch * kernels::num_compressed(form.tokens, kLength, kStride);
    const auto values = [&](int64_t count, int64_t heads, int64_t width, std::uint64_t seed) {
      return random_tensor(stream, {count, heads * width}, DType::kBf16, seed);
    };
    const auto heads = [](auto&& x, int64_t count) { return heads_of(x.view(), count, x.shape()[1] / count, 0, x.shape()[1] / count); };
    const Tensor q = values(rows, kMlaHeads, kAll, 1), k = values(pooled, kMlaHeads, kWidth, 2), k_shared = values(pooled, 1, kRotated, 3);
    const Tensor v = values(pooled, kMlaHeads, kWidth, 4), d_o = values(rows, kMlaHeads, kWidth, 5);
    Tensor o = d_o.clone(), d_q = q.clone(), d_k = k.clone(), d_shared = k_shared.clone(), d_v = v.clone();
    Tensor lse = Tensor::empty({rows, kMlaHeads}, DType::kF32, kGpu);
    const kernels::AttentionMask mask{.kind = kernels::AttentionMask::Kind::kBlocks, .block_length = kLength, .block_stride = kStride};
    const double scale = 0.07216878364870322;
    run(stream, kernels::FlashAttentionForward{.batch = form.batch,
                                               .q = heads(q, kMlaHeads),
                                               .k = heads(k, kMlaHeads),
                                               .k_shared = heads(k_shared, 1),
                                               .v = heads(v, kMlaHeads),
                                               .mask = mask,
                                               .scale = scale,
                                               .o = heads(o, kMlaHeads),
                                               .lse = lse});
    double pairs = 0;
    for (int64_t t = 0; t < form.tokens; ++t) pairs += static_cast<double>(kernels::num_compressed(t + 1, kLength, kStride));
    pairs *= static_cast<double>(form.batch * kMlaHeads);
    table.add_flops("nsa_compressed_backward", form.shape,
                    time_ms(stream,
                            [&] {
                              run(stream, kernels::FlashAttentionBackward{.batch = form.batch,
                                                                          .q = heads(q, kMlaHeads),
                                                                          .k = heads(k, kMlaHeads),
                                                                          .k_shared = heads(k_shared, 1),
                                                                          .v = heads(v, kMlaHeads),
                                                                          .mask = mask,
                                                                          .scale = scale,
                                                                          .o = heads(o, kMlaHeads),
                                                                          .lse = lse,
                                                                          .d_o = heads(d_o, kMlaHeads),
                                                                          .d_q = heads(d_q, kMlaHeads),
                                                                          .d_k = heads(d_k, kMlaHeads),
                                                                          .d_k_shared = heads(d_shared, 1),
                                                                          .d_v = heads(d_v, kMlaHeads)});
                            }),
                    static_cast<double>(6 * kAll + 4 * kWidth) * pairs);
  }
}

void bench_gate(Table& table) {
  Stream& stream = table.stream();
  constexpr int64_t kRows = 16384;
  const Tensor logits = random_tensor(stream, {kRows, 3 * kHeads}, DType::kBf16, 1), bias = random_tensor(stream, {3 * kHeads}, DType::kF32, 2);
  const Tensor d_y = random_tensor(stream, {kRows, kHeads * kWidth}, DType::kBf16, 3);
  std::array<Tensor, 3> o, d_o;
  for (std::size_t b = 0; b < 3; ++b) {
    o[b] = random_tensor(stream, {kRows, kHeads * kWidth}, DType::kBf16, 4 + b);
    d_o[b] = Tensor::empty({kRows, kHeads * kWidth}, DType::kBf16, kGpu);
  }
  Tensor g = Tensor::empty({kRows, 3 * kHeads}, DType::kF32, kGpu), y = Tensor::empty({kRows, kHeads * kWidth}, DType::kBf16, kGpu);
  Tensor d_logits = Tensor::empty({kRows, 3 * kHeads}, DType::kBf16, kGpu), d_bias = Tensor::zeros({3 * kHeads}, DType::kF32, kGpu);
  const double values = static_cast<double>(y.bytes());
  // One call exceeds the cache many times.
  const auto forward = [&](int) {
    run(stream, kernels::BranchGateForward{
                    .heads = kHeads, .logits = logits, .bias = bias, .o = {o[0].view(), o[1].view(), o[2].view()}, .g = g, .y = y});
  };
  table.add_bytes("branch_gate_forward", "16384x64x128", time_turns_ms(stream, 1, forward), 4 * values);
  const auto backward = [&](int) {
    run(stream, kernels::BranchGateBackward{.heads = kHeads,
                                            .g = g,
                                            .o = {o[0].view(), o[1].view(), o[2].view()},
                                            .d_y = d_y,
                                            .d_o = {d_o[0].view(), d_o[1].view(), d_o[2].view()},
                                            .d_logits = d_logits,
                                            .d_bias = d_bias});
  };
  table.add_bytes("branch_gate_backward", "16384x64x128", time_turns_ms(stream, 1, backward), 7 * values);
}

void bench_compress(Table& table) {
  Stream& stream = table.stream();
  constexpr int64_t kTokens = 32768, kLatent = 512;
  const int64_t entries = kernels::num_compressed(kTokens, kLength, kStride);
  constexpr double kBytes = 2.0 * kTokens * kLatent;
  const double pooled = 2.0 * static_cast<double>(entries * kLatent);
  const int turns = turns_for(2 * kBytes);
  const auto values = [&](int64_t rows, std::uint64_t seed) { return Copies(random_tensor(stream, {rows, kLatent}, DType::kBf16, seed), turns); };
  const Copies x = values(kTokens, 1), logits = values(kTokens, 2), d_y = values(entries, 4);
  const Tensor position = random_tensor(stream, {kLength, kLatent}, DType::kF32, 3);
  Copies y = values(entries, 5), d_x = values(kTokens, 6), d_logits = values(kTokens, 7);
  Tensor d_position = Tensor::zeros({kLength, kLatent}, DType::kF32, kGpu);
  const auto rows = [](auto&& of) { return heads_of(of.view(), 1, kLatent, 0, kLatent); };
  const auto forward = [&](int t) {
    run(stream, kernels::NsaCompressForward{.block_length = kLength,
                                            .block_stride = kStride,
                                            .x = rows(x[t]),
                                            .logits = rows(logits[t]),
                                            .position = position,
                                            .y = rows(y[t])});
  };
  table.add_bytes("nsa_compress_forward", "32768x512 l32 d16", time_turns_ms(stream, turns, forward), 2 * kBytes + pooled);
  const auto backward = [&](int t) {
    run(stream, kernels::NsaCompressBackward{.block_length = kLength,
                                             .block_stride = kStride,
                                             .x = rows(x[t]),
                                             .logits = rows(logits[t]),
                                             .position = position,
                                             .d_y = rows(d_y[t]),
                                             .d_x = rows(d_x[t]),
                                             .d_logits = rows(d_logits[t]),
                                             .d_position = d_position});
  };
  table.add_bytes("nsa_compress_backward", "32768x512 l32 d16", time_turns_ms(stream, turns, backward), 4 * kBytes + pooled);
}

const RegisterBench registered_branches{"nsa_branches", bench_branches};
const RegisterBench registered_backward{"nsa_compressed_backward", bench_compressed_backward};
const RegisterBench registered_long_branches{"64k_branches", bench_long_branches};
const RegisterBench registered_long_backward{"64k_compressed_backward", bench_long_compressed_backward};
const RegisterBench registered_mla{"nsa_mla", bench_mla};
const RegisterBench registered_mla_backward{"nsa_mla_compressed_backward", bench_mla_compressed_backward};
const RegisterBench registered_gate{"nsa_gate", bench_gate};
const RegisterBench registered_compress{"nsa_pooling", bench_compress};

}  // namespace
}  // namespace hadal::bench
