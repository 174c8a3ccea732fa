#include "interop/hf_names.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace hadal::interop {
namespace {

class List {
 public:
  explicit List(const ModelSection& model) : model_(model) {}

  void add(std::string name, Shape shape) { tensors.push_back({name, name, shape, layer_, false}); }
  void add_copy(std::string name, std::string of, Shape shape) {
    tensors.push_back({std::move(name), std::move(of), shape, layer_, false});
  }

  void add_mla(const std::string& at, bool sparse) {
    const AttentionSection& a = model_.attention;
    const std::int64_t h = model_.hidden_size, heads = a.num_heads, qk = a.qk_nope_head_dim + a.qk_rope_head_dim;
    const Shape kv_b{heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank};
    if (a.q_lora_rank > 0) {
      add(at + "q_a_proj.weight", {a.q_lora_rank, h});
      add(at + "q_a_layernorm.weight", {a.q_lora_rank});
      add(at + "q_b_proj.weight", {heads * qk, a.q_lora_rank});
    } else {
      add(at + "q_proj.weight", {heads * qk, h});
    }
    add(at + "kv_a_proj_with_mqa.weight", {a.kv_lora_rank + a.qk_rope_head_dim, h});
    add(at + "kv_a_layernorm.weight", {a.kv_lora_rank});
    add(at + "kv_b_proj.weight", kv_b);
    add(at + "o_proj.weight", {h, heads * a.v_head_dim});
    if (!sparse) return;
    const std::int64_t l = a.nsa.block_length;
    if (!a.nsa.tie_up) {
      add(at + "nsa.cmp.kv_b_proj.weight", kv_b);
      add(at + "nsa.win.kv_b_proj.weight", kv_b);
    }
    const std::string in = at + "nsa.compress.";
    add(in + "latent_weight", {a.kv_lora_rank, a.kv_lora_rank});
    add(in + "rope_weight", {a.qk_rope_head_dim, a.kv_lora_rank});
    add(in + "latent_position", {l, a.kv_lora_rank});
    add(in + "rope_position", {l, a.qk_rope_head_dim});
    add(in + "norm.weight", {a.kv_lora_rank});
    add_gate(at);
  }

  void add_gqa(const std::string& at, bool sparse) {
    const AttentionSection& a = model_.attention;
    const std::int64_t h = model_.hidden_size, dk = a.head_dim, dv = a.v_head_dim;
    add(at + "q_proj.weight", {a.num_heads * dk, h});
    for (const char* branch : {"nsa.cmp.", "nsa.slc.", "nsa.win."}) {
      const std::string in = sparse ? at + branch : at;
      add(in + "k_proj.weight", {a.num_kv_heads * dk, h});
      add(in + "v_proj.weight", {a.num_kv_heads * dv, h});
      if (!sparse) break;
    }
    add(at + "o_proj.weight", {h, a.num_heads * dv});
    if (!sparse) return;
    const std::int64_t l = a.nsa.block_length;
    add(at + "nsa.phi_k.weight", {dk, dk});
    add(at + "nsa.phi_k.position", {l, dk});
    add(at + "nsa.phi_v.weight", {dv, dv});
    add(at + "nsa.phi_v.position", {l, dv});
    add_gate(at);
  }

  void add_feed_forward(const std::string& at, std::int64_t width) {
    const std::int64_t h = model_.hidden_size;
    add(at + "gate_proj.weight", {width, h});
    add(at + "up_proj.weight", {width, h});
    add(at + "down_proj.weight", {h, width});
  }

  void add_moe(const std::string& at) {
    const MoeSection& moe = model_.moe;
    add(at + "gate.weight", {moe.num_experts, model_.hidden_size});
    if (moe.topk_method == TopkMethod::kNoauxTc) {
      add(at + "gate.e_score_correction_bias", {moe.num_experts});
      tensors.back().keep_f32 = true;
    }
    for (std::int64_t expert = 0; expert < moe.num_experts; ++expert) {
      add_feed_forward(fmt::format("{}experts.{}.", at, expert), moe.intermediate_size);
    }
    if (moe.num_shared > 0) add_feed_forward(at + "shared_experts.", moe.num_shared * moe.intermediate_size);
  }

  void add_block(std::int64_t layer, bool sparse, bool dense_ffn) {
    layer_ = layer;
    const std::string at = fmt::format("model.layers.{}.", layer);
    add(at + "input_layernorm.weight", {model_.hidden_size});
    const std::string attention = at + "self_attn.";
    model_.attention.kind == AttentionKind::kMla ? add_mla(attention, sparse) : add_gqa(attention, sparse);
    add(at + "post_attention_layernorm.weight", {model_.hidden_size});
    dense_ffn ? add_feed_forward(at + "mlp.", model_.intermediate_size) : add_moe(at + "mlp.");
  }

  void add_mtp(std::int64_t layer) {
    add_block(layer, model_.attention.sparse == SparseKind::kNsa, model_.moe.num_experts == 0);
    const std::string at = fmt::format("model.layers.{}.", layer);
    const std::int64_t h = model_.hidden_size;
    add(at + "enorm.weight", {h});
    add(at + "hnorm.weight", {h});
    add(at + "eh_proj.weight", {h, 2 * h});
    add(at + "shared_head.norm.weight", {h});
    add_copy(at + "shared_head.head.weight", "lm_head.weight", {model_.vocab_size, h});
    add_copy(at + "embed_tokens.weight", "model.embed_tokens.weight", {model_.vocab_size, h});
  }

  void no_layer() { layer_ = -1; }

  std::vector<ExpectedTensor> tensors;

 private:
  void add_gate(const std::string& at) {
    add(at + "nsa.gate.weight", {3 * model_.attention.num_heads, model_.hidden_size});
    add(at + "nsa.gate.bias", {3 * model_.attention.num_heads});
  }

  const ModelSection& model_;
  std::int64_t layer_ = -1;
};

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const ModelSection& model) {
  const AttentionSection& attention = model.attention;
  List list(model);
  list.add("model.embed_tokens.weight", {model.vocab_size, model.hidden_size});
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) {
    const bool listed = std::ranges::find(attention.dense_layers, layer) != attention.dense_layers.end();
    list.add_block(layer, attention.sparse == SparseKind::kNsa && !listed,
                   model.moe.num_experts == 0 || layer < model.moe.first_dense_layers);
  }
  for (std::int64_t depth = 0; depth < model.mtp.depth; ++depth) list.add_mtp(model.num_layers + depth);
  list.no_layer();
  list.add("model.norm.weight", {model.hidden_size});
  list.add("lm_head.weight", {model.vocab_size, model.hidden_size});
  return std::move(list.tensors);
}

}  // namespace hadal::interop
