#include "interop/hf_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/load.h"
#include "config/write.h"
#include "core/error.h"
#include "core/strict_json.h"
#include "interop/json_fields.h"

namespace hadal::interop {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 30;

/// What transformers puts in place of missing numbers: mscale 1 with mscale_all_dim 0 is the plain YaRN temperature.
void read_yarn(const JsonFields& fields, std::int64_t max_positions, YarnSection& yarn) {
  yarn.original_length = fields.integer("original_max_position_embeddings", 1, kMaxSize, max_positions);
  const double ratio = static_cast<double>(max_positions) / static_cast<double>(yarn.original_length);
  yarn.factor = fields.number("factor", 1.0, 1e6, std::max(1.0, ratio));
  yarn.beta_fast = fields.number("beta_fast", 0.0, 1e6, 32.0);
  yarn.beta_slow = fields.number("beta_slow", 0.0, 1e6, 1.0);
  const double mscale = fields.number("mscale", 0.0, 100.0, 0.0);
  const double mscale_all_dim = fields.number("mscale_all_dim", 0.0, 100.0, 0.0);
  if (mscale == 0.0 && mscale_all_dim != 0.0) {
    fields.problem("mscale", "0 together with another mscale_all_dim has no counterpart here");
  }
  // With only one of the two given, transformers falls back to the plain temperature.
  yarn.mscale = mscale != 0.0 && mscale_all_dim != 0.0 ? mscale : 1.0;
  yarn.mscale_all_dim = mscale_all_dim;
  if (fields.has("attention_factor")) fields.problem("attention_factor", "an explicit factor is not supported; mscale gives it");
  if (!fields.boolean("truncate", true)) fields.problem("truncate", "false is not supported");
}

/// rope_theta with rope_scaling (4.x), or both inside rope_parameters (5.x).
void read_rope(const JsonFields& top, std::vector<std::string>& problems, ModelSection& model) {
  RopeSection& rope = model.rope;
  rope.theta = top.number("rope_theta", 1.0, 1e12, 10000.0);
  const bool folded = top.has("rope_parameters");
  const char* key = folded ? "rope_parameters" : "rope_scaling";
  const nlohmann::json* scaling = top.object(key);
  if (scaling == nullptr) return;
  const JsonFields fields(*scaling, problems, std::string(key) + ".");
  rope.theta = fields.number("rope_theta", 1.0, 1e12, rope.theta);
  if (fields.number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0)
    fields.problem("partial_rotary_factor", "only 1 is supported");
  const std::string type = fields.text("rope_type", fields.text("type", "default"));
  if (type == "yarn") {
    read_yarn(fields, model.max_positions, rope.yarn);
  } else if (type != "default") {
    fields.problem("rope_type", fmt::format("\"{}\" is not supported, only \"default\" and \"yarn\"", type.substr(0, 64)));
  }
}

void read_mla(const JsonFields& fields, AttentionSection& attention) {
  attention.kind = AttentionKind::kMla;
  attention.q_lora_rank = fields.integer("q_lora_rank", 0, kMaxSize, 0);
  attention.kv_lora_rank = fields.integer("kv_lora_rank", 1, kMaxSize);
  attention.qk_nope_head_dim = fields.integer("qk_nope_head_dim", 1, kMaxSize);
  attention.qk_rope_head_dim = fields.integer("qk_rope_head_dim", 2, kMaxSize);
  attention.v_head_dim = fields.integer("v_head_dim", 1, kMaxSize);
  if (fields.integer("num_key_value_heads", 1, kMaxSize, attention.num_heads) != attention.num_heads) {
    fields.problem("num_key_value_heads", fmt::format("must equal num_attention_heads {}", attention.num_heads));
  }
}

void read_gqa(const JsonFields& fields, AttentionSection& attention) {
  attention.kind = AttentionKind::kGqa;
  attention.num_kv_heads = fields.integer("num_key_value_heads", 1, kMaxSize);
  attention.head_dim = fields.integer("qk_head_dim", 2, kMaxSize);
  attention.v_head_dim = fields.integer("v_head_dim", 1, kMaxSize);
}

void read_nsa(const JsonFields& top, std::vector<std::string>& problems, ModelSection& model) {
  AttentionSection& attention = model.attention;
  attention.sparse = SparseKind::kNsa;
  const std::string kind = top.text("attention_kind");
  if (kind != "mla" && kind != "gqa") top.problem("attention_kind", "neither \"mla\" nor \"gqa\"");
  kind == "gqa" ? read_gqa(top, attention) : read_mla(top, attention);
  attention.dense_layers = top.integers("attention_dense_layers", 0, model.num_layers - 1);
  const nlohmann::json* object = top.object("nsa");
  if (object == nullptr) return top.problem("nsa", "is missing");
  const JsonFields fields(*object, problems, "nsa.");
  NsaSection& nsa = attention.nsa;
  nsa.block_length = fields.integer("block_length", 1, kMaxSize);
  nsa.block_stride = fields.integer("block_stride", 1, kMaxSize);
  nsa.select_block = fields.integer("select_block", 1, kMaxSize);
  nsa.num_selected = fields.integer("num_selected", 1, kMaxSize);
  nsa.window = fields.integer("window", 1, kMaxSize);
  nsa.tie_up = fields.boolean("tie_up", false);
  nsa.num_select_groups = fields.integer("num_select_groups", 1, kMaxSize, 1);
}

/// Router of the V3 kind: sigmoid, bias, sum of the two best per group. Keys that transformers 5 no longer writes may be missing.
void read_v3_router(const JsonFields& fields, MoeSection& moe) {
  moe.score = RouterScore::kSigmoid;
  moe.topk_method = TopkMethod::kNoauxTc;
  fields.only_text("scoring_func", "sigmoid", "this model type has V3's router");
  fields.only_text("topk_method", "noaux_tc", "this model type has V3's router");
  moe.normalize_topk = fields.boolean("norm_topk_prob", true);
  moe.num_groups = fields.integer("n_group", 1, kMaxSize, 1);
  moe.topk_groups = fields.integer("topk_group", 1, kMaxSize, 1);
}

void read_v2_router(const JsonFields& fields, MoeSection& moe) {
  moe.score = RouterScore::kSoftmax;
  moe.normalize_topk = false;
  fields.only_text("scoring_func", "softmax", "this model type has V2's router");
  fields.only_false("norm_topk_prob", "codes disagree on whether V2 then scales or normalises");
  const std::string method = fields.text("topk_method", "greedy");
  moe.topk_method = method == "greedy" ? TopkMethod::kGreedy : TopkMethod::kGroupLimitedGreedy;
  if (method == "greedy") return;
  if (method != "group_limited_greedy")
    fields.problem("topk_method", fmt::format("\"{}\" is not supported", method.substr(0, 64)));
  moe.num_groups = fields.integer("n_group", 1, kMaxSize);
  moe.topk_groups = fields.integer("topk_group", 1, kMaxSize);
}

void read_moe(const JsonFields& fields, bool v2, ModelSection& model) {
  MoeSection& moe = model.moe;
  moe.num_experts = fields.integer("n_routed_experts", 0, kMaxSize, 0);
  if (moe.num_experts == 0) return;
  moe.num_shared = fields.integer("n_shared_experts", 0, kMaxSize, 0);
  moe.top_k = fields.integer("num_experts_per_tok", 1, kMaxSize);
  moe.intermediate_size = fields.integer("moe_intermediate_size", 1, kMaxSize);
  moe.first_dense_layers = std::min(fields.integer("first_k_dense_replace", 0, kMaxSize, 0), model.num_layers);
  moe.routed_scaling = fields.number("routed_scaling_factor", 0.0, 1000.0, 1.0);
  if (fields.integer("moe_layer_freq", 1, kMaxSize, 1) != 1) fields.problem("moe_layer_freq", "only 1 is supported");
  v2 ? read_v2_router(fields, moe) : read_v3_router(fields, moe);
}

std::optional<std::int64_t> read_id(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end()) return std::nullopt;
  const nlohmann::json& value = found->is_array() && !found->empty() ? (*found)[0] : *found;
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxSize)) return std::nullopt;
  return value.get<std::int64_t>();
}

void read_quantization(const JsonFields& top, std::vector<std::string>& problems, HfConfig& config) {
  const nlohmann::json* object = top.object("quantization_config");
  if (object == nullptr) return;
  const JsonFields fields(*object, problems, "quantization_config.");
  fields.only_text("quant_method", "fp8", "other quantisations are not read");
  fields.only_text("fmt", "e4m3", "other FP8 formats are not read");
  std::pair<std::int64_t, std::int64_t> block{128, 128};
  if (const auto found = object->find("weight_block_size"); found != object->end()) {
    const bool pair =
        found->is_array() && found->size() == 2 && (*found)[0].is_number_unsigned() && (*found)[1].is_number_unsigned();
    if (pair) block = {(*found)[0].get<std::int64_t>(), (*found)[1].get<std::int64_t>()};
    if (!pair || block.first < 1 || block.second < 1 || block.first > kMaxSize || block.second > kMaxSize) {
      fields.problem("weight_block_size", "is no pair of block sizes");
      block = {128, 128};
    }
  }
  config.fp8_block = block;
}

/// Ranges of single values and rules between them, as for a shape that comes from YAML.
void check_shape(const ModelSection& model, const std::filesystem::path& path) {
  Config config;
  config.model = model;
  config.data.sequence_length = std::min(config.data.sequence_length, model.max_positions);
  load_config_text(to_yaml(config), path.string());
}

}  // namespace

HfConfig parse_hf_config(std::string_view text, const std::filesystem::path& path) {
  const nlohmann::json json = parse_strict_json(text, path.string());
  if (!json.is_object()) throw UserError("{}: is no JSON object", path.string());
  std::vector<std::string> problems;
  const JsonFields fields(json, problems);
  HfConfig config;
  config.model_type = fields.text("model_type");
  if (config.model_type != "deepseek_v3" && config.model_type != "deepseek_v2" && config.model_type != "hadal_nsa") {
    throw UserError("{}: model_type \"{}\" is not one that Hadal reads: deepseek_v3, deepseek_v2, hadal_nsa", path.string(),
                    config.model_type.substr(0, 64));
  }
  ModelSection& model = config.model;
  model.vocab_size = fields.integer("vocab_size", 2, kMaxSize);
  model.hidden_size = fields.integer("hidden_size", 1, kMaxSize);
  model.num_layers = fields.integer("num_hidden_layers", 1, kMaxSize);
  model.intermediate_size = fields.integer("intermediate_size", 1, kMaxSize);
  model.max_positions = fields.integer("max_position_embeddings", 1, kMaxSize, 4096);
  model.rms_norm_eps = fields.number("rms_norm_eps", 0.0, 1.0, 1e-6);
  model.init_std = fields.number("initializer_range", 0.0, 10.0, 0.02);
  model.attention.num_heads = fields.integer("num_attention_heads", 1, kMaxSize);
  config.model_type == "hadal_nsa" ? read_nsa(fields, problems, model) : read_mla(fields, model.attention);
  read_rope(fields, problems, model);
  read_moe(fields, config.model_type == "deepseek_v2", model);
  if (config.model_type != "deepseek_v2") model.mtp.depth = fields.integer("num_nextn_predict_layers", 0, 8, 0);
  read_quantization(fields, problems, config);
  config.ids = {read_id(json, "bos_token_id"), read_id(json, "eos_token_id"), read_id(json, "pad_token_id")};

  fields.only_text("hidden_act", "silu", "the feed-forward is SwiGLU");
  fields.only_false("attention_bias", "projections have no bias");
  fields.only_false("mlp_bias", "projections have no bias");
  fields.only_false("tie_word_embeddings", "embedding and head are separate");
  if (!fields.boolean("rope_interleave", true))
    fields.problem("rope_interleave", "false is not supported: rotation is interleaved");
  if (model.rms_norm_eps != 1e-6 && config.model_type != "hadal_nsa") {
    fields.problem("rms_norm_eps", fmt::format("{} is not supported, only 1e-6: transformers builds the latent norms with 1e-6",
                                               model.rms_norm_eps));
  }
  if (!problems.empty()) {
    std::string list;
    for (const std::string& problem : problems) list += "\n  " + problem;
    throw UserError("{}: cannot be read as {}:{}", path.string(), config.model_type, list);
  }
  check_shape(model, path);
  return config;
}

}  // namespace hadal::interop
