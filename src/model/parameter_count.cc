#include "model/parameter_count.h"

#include <algorithm>
#include <initializer_list>

#include "core/error.h"

namespace hadal::model {
namespace {

[[noreturn]] void too_large() { throw UserError("the model's parameters do not fit a 63-bit count: its sizes are too large"); }

/// Product and sum that refuse to wrap: sizes come from a file.
std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(result, factor, &result)) too_large();
  }
  return result;
}

std::int64_t sum(std::initializer_list<std::int64_t> terms) {
  std::int64_t result = 0;
  for (const std::int64_t term : terms) {
    if (__builtin_add_overflow(result, term, &result)) too_large();
  }
  return result;
}

/// One layer's attention: matrices, and apart the parts that only NSA has (matrices and small tensors) and the latent norms.
struct AttentionCount {
  std::int64_t matrices = 0;
  std::int64_t nsa_matrices = 0;
  std::int64_t nsa_small = 0;  ///< position tables, gate bias
  std::int64_t norms = 0;
  std::int64_t nsa_norms = 0;
};

AttentionCount count_mla(const ModelSection& model, bool sparse) {
  const AttentionSection& a = model.attention;
  const std::int64_t h = model.hidden_size, heads = a.num_heads, rq = a.q_lora_rank, rkv = a.kv_lora_rank;
  const std::int64_t dr = a.qk_rope_head_dim, qk = a.qk_nope_head_dim + dr;
  const std::int64_t kv_b = product({heads, a.qk_nope_head_dim + a.v_head_dim, rkv});
  AttentionCount count;
  count.matrices = sum({rq > 0 ? sum({product({rq, h}), product({heads, qk, rq})}) : product({heads, qk, h}),
                        product({rkv + dr, h}), kv_b, product({h, heads, a.v_head_dim})});
  count.norms = sum({rq, rkv});
  if (!sparse) return count;
  const std::int64_t l = a.nsa.block_length;
  count.nsa_matrices =
      sum({product({3, heads, h}), a.nsa.tie_up ? 0 : product({2, kv_b}), product({rkv, rkv}), product({dr, rkv})});
  count.nsa_small = sum({product({3, heads}), product({l, rkv}), product({l, dr})});
  count.nsa_norms = rkv;
  return count;
}

AttentionCount count_gqa(const ModelSection& model, bool sparse) {
  const AttentionSection& a = model.attention;
  const std::int64_t h = model.hidden_size, heads = a.num_heads, dk = a.head_dim, dv = a.v_head_dim;
  const std::int64_t kv = product({a.num_kv_heads, dk + dv, h});
  AttentionCount count;
  count.matrices = sum({product({heads, dk, h}), kv, product({h, heads, dv})});
  if (!sparse) return count;
  const std::int64_t l = a.nsa.block_length;
  count.nsa_matrices = sum({product({3, heads, h}), product({2, kv}), product({dk, dk}), product({dv, dv})});
  count.nsa_small = sum({product({3, heads}), product({l, dk + dv})});
  return count;
}

AttentionCount count_attention(const ModelSection& model, bool sparse) {
  return model.attention.kind == AttentionKind::kMla ? count_mla(model, sparse) : count_gqa(model, sparse);
}

/// Main layers that use sparse attention.
std::int64_t num_sparse_layers(const ModelSection& model) {
  if (model.attention.sparse == SparseKind::kNone) return 0;
  return model.num_layers - static_cast<std::int64_t>(model.attention.dense_layers.size());
}

std::int64_t num_dense_ffn_layers(const ModelSection& model) {
  return model.moe.num_experts == 0 ? model.num_layers : std::min(model.moe.first_dense_layers, model.num_layers);
}

std::int64_t expert_size(const ModelSection& model) { return product({3, model.hidden_size, model.moe.intermediate_size}); }
std::int64_t dense_size(const ModelSection& model) { return product({3, model.hidden_size, model.intermediate_size}); }

/// Matrix entries that a token meets in one FFN of the kind that MTP modules have: MoE if there are experts.
std::int64_t active_ffn(const ModelSection& model, bool dense) {
  if (dense) return dense_size(model);
  const MoeSection& moe = model.moe;
  return sum({product({moe.top_k + moe.num_shared, expert_size(model)}), product({moe.num_experts, model.hidden_size})});
}

/// Keys that the three branches of an NSA layer visit, summed over the queries of one sequence.
double nsa_keys(const NsaSection& nsa, std::int64_t length) {
  double keys = 0.0;
  for (std::int64_t t = 0; t < length; ++t) {
    const std::int64_t compressed = t + 1 >= nsa.block_length ? (t + 1 - nsa.block_length) / nsa.block_stride + 1 : 0;
    const std::int64_t selected = std::min(t + 1, (nsa.num_selected - 1) * nsa.select_block + t % nsa.select_block + 1);
    keys += static_cast<double>(compressed + selected + std::min(t + 1, nsa.window));
  }
  return keys;
}

}  // namespace

ParameterCount count_parameters(const ModelSection& model) {
  const std::int64_t h = model.hidden_size, layers = model.num_layers;
  const std::int64_t sparse = num_sparse_layers(model), dense = num_dense_ffn_layers(model), moe = layers - dense;
  const AttentionCount plain = count_attention(model, false), with_nsa = count_attention(model, true);
  const std::int64_t nsa_layer = sum({with_nsa.nsa_matrices, with_nsa.nsa_small});
  const bool has_experts = model.moe.num_experts > 0;
  const std::int64_t expert = has_experts ? expert_size(model) : 0;
  const std::int64_t router = has_experts ? product({model.moe.num_experts, h}) : 0;

  ParameterCount count;
  count.embedding = product({model.vocab_size, h});
  count.head = count.embedding;
  count.attention = product({layers, plain.matrices});
  count.nsa = product({sparse, nsa_layer});
  count.dense_ffn = product({dense, dense_size(model)});
  count.routed_experts = product({moe, model.moe.num_experts, expert});
  count.shared_experts = product({moe, model.moe.num_shared, expert});
  count.router = product({moe, router});
  count.norms = sum({product({layers, sum({2 * h, plain.norms})}), product({sparse, with_nsa.nsa_norms}), h});
  count.total = sum({count.embedding, count.head, count.attention, count.nsa, count.dense_ffn, count.routed_experts,
                     count.shared_experts, count.router, count.norms});
  const std::int64_t idle = std::max<std::int64_t>(model.moe.num_experts - model.moe.top_k, 0);
  count.active = count.total - product({moe, idle, expert});

  const bool mtp_sparse = model.attention.sparse == SparseKind::kNsa;
  const std::int64_t mtp_attention = sum({plain.matrices, plain.norms, mtp_sparse ? sum({nsa_layer, with_nsa.nsa_norms}) : 0});
  const std::int64_t mtp_ffn =
      has_experts ? sum({product({model.moe.num_experts + model.moe.num_shared, expert}), router}) : dense_size(model);
  // eh_proj [H, 2H]; norms: the block's two, enorm, hnorm, shared_head.norm.
  count.mtp = product({model.mtp.depth, sum({product({2, h, h}), product({5, h}), mtp_attention, mtp_ffn})});
  count.total_with_mtp = sum({count.total, count.mtp});
  return count;
}

std::int64_t multiplied_per_token(const ModelSection& model) {
  const std::int64_t h = model.hidden_size, head = product({model.vocab_size, h});
  const std::int64_t dense = num_dense_ffn_layers(model), moe = model.num_layers - dense;
  const AttentionCount attention = count_attention(model, true);
  std::int64_t result =
      sum({head, product({model.num_layers, attention.matrices}), product({num_sparse_layers(model), attention.nsa_matrices}),
           product({dense, active_ffn(model, true)})});
  if (moe > 0) result = sum({result, product({moe, active_ffn(model, false)})});
  if (model.mtp.depth == 0) return result;
  const std::int64_t nsa = model.attention.sparse == SparseKind::kNsa ? attention.nsa_matrices : 0;
  const std::int64_t block =
      sum({product({2, h, h}), attention.matrices, nsa, active_ffn(model, model.moe.num_experts == 0), head});
  return sum({result, product({model.mtp.depth, block})});
}

double model_flops_per_token(const ModelSection& model, std::int64_t sequence_length) {
  const AttentionSection& a = model.attention;
  const std::int64_t qk = a.kind == AttentionKind::kMla ? a.qk_nope_head_dim + a.qk_rope_head_dim : a.head_dim;
  const double per_key = 6.0 * static_cast<double>(a.num_heads) * static_cast<double>(qk + a.v_head_dim);
  const bool sparse = a.sparse == SparseKind::kNsa;
  const double sparse_layers = static_cast<double>(num_sparse_layers(model) + (sparse ? model.mtp.depth : 0));
  const double full_layers = static_cast<double>(model.num_layers + model.mtp.depth) - sparse_layers;
  const double length = static_cast<double>(sequence_length);
  double flops = 6.0 * static_cast<double>(multiplied_per_token(model)) + full_layers * per_key * length / 2.0;
  if (sparse_layers > 0) flops += sparse_layers * per_key * nsa_keys(a.nsa, sequence_length) / length;
  return flops;
}

}  // namespace hadal::model
