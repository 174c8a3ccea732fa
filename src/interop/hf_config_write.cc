#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "interop/hf_config.h"

namespace hadal::interop {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(const std::optional<std::int64_t>& id) { return id ? Json(*id) : Json(nullptr); }

/// Keys of 4.x at top level, which every version reads; 5.x folds them into rope_parameters by itself.
void write_rope(const RopeSection& rope, Json& json) {
  json["rope_theta"] = rope.theta;
  const YarnSection& yarn = rope.yarn;
  if (yarn.factor <= 1.0) {
    json["rope_scaling"] = nullptr;
    return;
  }
  json["rope_scaling"] = {{"type", "yarn"},
                          {"rope_type", "yarn"},
                          {"factor", yarn.factor},
                          {"original_max_position_embeddings", yarn.original_length},
                          {"beta_fast", yarn.beta_fast},
                          {"beta_slow", yarn.beta_slow},
                          {"mscale", yarn.mscale},
                          {"mscale_all_dim", yarn.mscale_all_dim}};
}

void write_moe(const ModelSection& model, bool v2, Json& json) {
  const MoeSection& moe = model.moe;
  const bool any = moe.num_experts > 0;
  json["n_routed_experts"] = moe.num_experts;
  json["n_shared_experts"] = moe.num_shared;
  json["num_experts_per_tok"] = moe.top_k;
  json["moe_intermediate_size"] = moe.intermediate_size;
  json["routed_scaling_factor"] = moe.routed_scaling;
  const bool ungrouped = !any || moe.topk_method == TopkMethod::kGreedy;
  json["n_group"] = ungrouped ? 1 : moe.num_groups;
  json["topk_group"] = ungrouped ? 1 : moe.topk_groups;
  json["topk_method"] = !v2 ? "noaux_tc" : moe.topk_method == TopkMethod::kGreedy ? "greedy" : "group_limited_greedy";
  json["scoring_func"] = v2 ? "softmax" : "sigmoid";
  json["norm_topk_prob"] = !v2 && moe.normalize_topk;
  // Without experts every layer is dense, MTP's too.
  json["first_k_dense_replace"] = any ? moe.first_dense_layers : model.num_layers + model.mtp.depth;
  json["moe_layer_freq"] = 1;
  json["moe_router_dtype"] = "float32";
}

void write_attention(const AttentionSection& attention, bool nsa, Json& json) {
  const bool gqa = attention.kind == AttentionKind::kGqa;
  json["num_attention_heads"] = attention.num_heads;
  json["num_key_value_heads"] = gqa ? attention.num_kv_heads : attention.num_heads;
  if (gqa) {
    json["qk_head_dim"] = attention.head_dim;
  } else {
    json["q_lora_rank"] = attention.q_lora_rank > 0 ? Json(attention.q_lora_rank) : Json(nullptr);
    json["kv_lora_rank"] = attention.kv_lora_rank;
    json["qk_nope_head_dim"] = attention.qk_nope_head_dim;
    json["qk_rope_head_dim"] = attention.qk_rope_head_dim;
  }
  json["v_head_dim"] = attention.v_head_dim;
  if (!nsa) return;
  json["attention_kind"] = gqa ? "gqa" : "mla";
  json["attention_dense_layers"] = attention.dense_layers;
  json["nsa"] = {{"block_length", attention.nsa.block_length},
                 {"block_stride", attention.nsa.block_stride},
                 {"select_block", attention.nsa.select_block},
                 {"num_selected", attention.nsa.num_selected},
                 {"window", attention.nsa.window},
                 {"tie_up", attention.nsa.tie_up},
                 {"num_select_groups", attention.nsa.num_select_groups}};
}

/// What the model type cannot say; the caller chose the type by the router's kind.
void check_type(const ModelSection& model, std::string_view type) {
  const bool nsa = type == "hadal_nsa";
  HADAL_CHECK(nsa || type == "deepseek_v3" || type == "deepseek_v2", "model type {}", type);
  const auto refuse = [&](const std::string& reason) { throw UserError("export as {}: {}", type, reason); };
  if (nsa != (model.attention.sparse == SparseKind::kNsa)) refuse("model.attention.sparse does not fit this type");
  if (nsa) return;
  if (model.attention.kind != AttentionKind::kMla) refuse("model.attention.kind must be mla");
  if (model.rms_norm_eps != 1e-6) {
    refuse(fmt::format("model.rms_norm_eps {} must be 1e-6: engines build the latent norms with it", model.rms_norm_eps));
  }
  if (model.moe.num_experts > 0 && model.moe.num_shared == 0)
    refuse("model.moe.num_shared must be at least 1: the shared expert is always built");
  if (type == "deepseek_v2" && model.mtp.depth > 0) refuse("this type has no MTP; add --no-mtp");
}

}  // namespace

std::string write_hf_config(const ModelSection& model, const HfConfigOptions& options) {
  check_type(model, options.model_type);
  const bool nsa = options.model_type == "hadal_nsa";
  const bool v2 = options.model_type == "deepseek_v2";
  Json json;
  json["architectures"] = {nsa ? "HadalNsaForCausalLM" : v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"};
  if (nsa) {
    json["auto_map"] = {{"AutoConfig", "configuration_hadal_nsa.HadalNsaConfig"},
                        {"AutoModelForCausalLM", "modeling_hadal_nsa.HadalNsaForCausalLM"}};
  }
  json["model_type"] = options.model_type;
  json["torch_dtype"] = options.dtype == DType::kBf16 ? "bfloat16" : "float32";
  json["vocab_size"] = model.vocab_size;
  json["hidden_size"] = model.hidden_size;
  json["intermediate_size"] = model.intermediate_size;
  json["num_hidden_layers"] = model.num_layers;
  if (model.mtp.depth > 0) json["num_nextn_predict_layers"] = model.mtp.depth;
  write_attention(model.attention, nsa, json);
  write_moe(model, v2, json);
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = model.rms_norm_eps;
  json["attention_bias"] = false;
  json["attention_dropout"] = 0.0;
  json["max_position_embeddings"] = model.max_positions;
  write_rope(model.rope, json);
  json["rope_interleave"] = true;
  json["initializer_range"] = model.init_std;
  json["tie_word_embeddings"] = false;
  json["use_cache"] = true;
  json["pretraining_tp"] = 1;
  json["bos_token_id"] = or_null(options.ids.bos);
  json["eos_token_id"] = or_null(options.ids.eos);
  json["pad_token_id"] = or_null(options.ids.pad);
  json["transformers_version"] = "4.46.3";
  return json.dump(2) + "\n";
}

std::string write_generation_config(const SpecialIds& ids) {
  Json json;
  json["_from_model_config"] = true;
  json["bos_token_id"] = or_null(ids.bos);
  json["eos_token_id"] = or_null(ids.eos);
  json["pad_token_id"] = or_null(ids.pad);
  json["do_sample"] = true;
  json["temperature"] = 1.0;
  json["top_p"] = 0.95;
  json["transformers_version"] = "4.46.3";
  return json.dump(2) + "\n";
}

}  // namespace hadal::interop
