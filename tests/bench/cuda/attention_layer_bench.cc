// A whole attention layer of 16 heads on 32k tokens in bf16, projections, norms and gates included: sparse attention over latents
// (spec/model.md 9; compression 32/16, blocks of 64, 16 chosen, window 512) beside the same layer dense. The sparse layer runs with keys
// and values per head and with queries absorbed into the latent space; on tokens drawn one by one, which choose their blocks each by
// itself, and on tokens that are 0.95 of the one before and new for the rest ("alike"), whose choices overlap. A forward pass keeps what
// the backward pass needs; "backward" is what both passes together take beyond the forward one. Operations: those of the projections and
// of the keys that each branch sees.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "gpu_bench.h"
#include "kernels/nsa.h"
#include "nn/attention/make_attention.h"

namespace hadal::bench {
namespace {

using nn::AttentionOptions;
using nn::LatentMode;
using nn::NsaOptions;
using std::int64_t;

constexpr int64_t kHidden = 2048;

AttentionOptions options_of(int64_t tokens, bool sparse, LatentMode mode) {
  AttentionOptions o;
  o.kind = AttentionOptions::Kind::kMla;
  o.hidden_size = kHidden;
  o.num_heads = 16;
  o.kv_lora_rank = 512;
  o.qk_nope_head_dim = 128;
  o.qk_rope_head_dim = 64;
  o.v_head_dim = 128;
  o.latent_mode = mode;
  if (sparse) o.nsa = NsaOptions{};
  o.max_positions = tokens;
  o.dtype = DType::kBf16;
  o.device = kGpu;
  return o;
}

struct Operations {
  double forward = 0, backward = 0;
};

/// Of one head on a sequence of `tokens`: keys that are seen, by the branches (or by dense attention), and scored for the choice.
void add_pairs(const AttentionOptions& o, int64_t tokens, Operations& operations) {
  double seen = 0, scored = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (!o.nsa) {
      seen += static_cast<double>(t + 1);
      continue;
    }
    const int64_t block = o.nsa->select_block, own = t % block + 1;
    const int64_t entries = kernels::num_compressed(t + 1, o.nsa->block_length, o.nsa->block_stride);
    seen += static_cast<double>(entries + std::min(t + 1, o.nsa->window) + std::min(t / block, o.nsa->num_selected - 1) * block + own);
    scored += static_cast<double>(entries);
  }
  const auto heads = static_cast<double>(o.num_heads), qk = static_cast<double>(o.qk_width()), v = static_cast<double>(o.v_head_dim);
  operations.forward += 2 * heads * ((qk + v) * seen + qk * scored);
  operations.backward += 2 * heads * (3 * qk + 2 * v) * seen;
}

Operations operations_of(const AttentionOptions& o, const nn::ParameterList& parameters, int64_t tokens) {
  Operations operations;
  for (const nn::Parameter* parameter : parameters) {
    if (parameter->shape().rank() != 2 || !parameter->name().ends_with("weight")) continue;
    const bool pooled = parameter->name().ends_with("cmp.kv_b_proj.weight");
    const int64_t rows = pooled ? kernels::num_compressed(tokens, o.nsa->block_length, o.nsa->block_stride) : tokens;
    operations.forward += 2.0 * static_cast<double>(parameter->numel()) * static_cast<double>(rows);
    operations.backward += 4.0 * static_cast<double>(parameter->numel()) * static_cast<double>(rows);
  }
  add_pairs(o, tokens, operations);
  return operations;
}

/// [tokens, kHidden], normal, of neighbours that are alike: correlation 0.95.
Tensor alike_tokens(Stream& stream, int64_t tokens) {
  Tensor x = to_host(stream, random_tensor(stream, {tokens, kHidden}, DType::kBf16, 1));
  const float kept = 0.95F, fresh = std::sqrt(1 - kept * kept);
  Bf16* const values = x.as<Bf16>();
  for (int64_t i = kHidden; i < x.numel(); ++i) values[i] = to_bf16(kept * to_float(values[i - kHidden]) + fresh * to_float(values[i]));
  return to_device(stream, x, kGpu);
}

struct Times {
  double forward, backward;
};

Times add_rows(Table& table, const std::string& kind, int64_t tokens, bool sparse, LatentMode mode, bool alike) {
  Stream& stream = table.stream();
  const AttentionOptions options = options_of(tokens, sparse, mode);
  const auto layer = nn::make_attention(options, "a", nn::make_rope_table(options));
  nn::ParameterList parameters;
  layer->collect(parameters);
  for (nn::Parameter* parameter : parameters) parameter->initialize(1);
  const Tensor x = alike ? alike_tokens(stream, tokens) : random_tensor(stream, {tokens, kHidden}, DType::kBf16, 1);
  const Tensor d_y = random_tensor(stream, {tokens, kHidden}, DType::kBf16, 2);
  nn::Context ctx{.stream = stream, .batch = 1, .seq = tokens};
  nn::SavedPtr saved;
  const auto forward = [&] {
    saved.reset();
    layer->forward(ctx, x, &saved);
  };
  const double forward_ms = time_ms(stream, forward);
  const double both_ms = time_ms(stream, [&] {
    forward();
    layer->backward_input(ctx, d_y, *saved);
    layer->backward_weight(ctx, *saved);
  });
  const Times times{forward_ms, both_ms - forward_ms};
  const Operations operations = operations_of(options, parameters, tokens);
  const std::string shape = fmt::format("{} b1 s{}", kind, tokens);
  table.add_flops("attention_layer_forward", shape, times.forward, operations.forward);
  table.add_flops("attention_layer_backward", shape, times.backward, operations.backward);
  return times;
}

const RegisterBench registered{"attention_layer", [](Table& table) {
                                 constexpr int64_t kTokens = 32768;
                                 const Times dense = add_rows(table, "mla", kTokens, false, LatentMode::kAuto, false);
                                 const auto beside = [&](const char* kind, LatentMode mode, bool alike) {
                                   const Times sparse = add_rows(table, kind, kTokens, true, mode, alike);
                                   fmt::print("attention_layer: {} is {:.2f} x dense forward, {:.2f} x backward, {:.2f} x both\n", kind,
                                              dense.forward / sparse.forward, dense.backward / sparse.backward,
                                              (dense.forward + dense.backward) / (sparse.forward + sparse.backward));
                                 };
                                 beside("mla_nsa", LatentMode::kMha, false);
                                 beside("mla_nsa alike", LatentMode::kMha, true);
                                 beside("mla_nsa absorbed", LatentMode::kMqa, false);
                                 beside("mla_nsa absorbed alike", LatentMode::kMqa, true);
                               }};

}  // namespace
}  // namespace hadal::bench
