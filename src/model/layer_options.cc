#include "model/layer_options.h"

#include <algorithm>

namespace hadal::model {

namespace {

DType dtype_of(ComputeType compute) {
  switch (compute) {
    case ComputeType::kF64: return DType::kF64;
    case ComputeType::kBf16: return DType::kBf16;
    case ComputeType::kF32: break;
  }
  return DType::kF32;
}

}  // namespace

ModelOptions model_options(const Config& config, Device device) {
  const BalanceSection& b = config.balance;
  return {.shape = config.model,
          .balance = {.sequence_alpha = b.sequence_alpha,
                      .expert_alpha = b.expert_alpha,
                      .device_alpha = b.device_alpha,
                      .communication_alpha = b.communication_alpha,
                      .num_devices = b.num_devices},
          .dtype = dtype_of(config.precision.compute),
          .device = device};
}

nn::AttentionOptions attention_options(const ModelOptions& model, std::int64_t layer_idx) {
  const ModelSection& shape = model.shape;
  const AttentionSection& a = shape.attention;
  nn::AttentionOptions options;
  options.kind = a.kind == AttentionKind::kMla ? nn::AttentionOptions::Kind::kMla : nn::AttentionOptions::Kind::kGqa;
  options.hidden_size = shape.hidden_size;
  options.num_heads = a.num_heads;
  options.v_head_dim = a.v_head_dim;
  options.q_lora_rank = a.q_lora_rank;
  options.kv_lora_rank = a.kv_lora_rank;
  options.qk_nope_head_dim = a.qk_nope_head_dim;
  options.qk_rope_head_dim = a.qk_rope_head_dim;
  options.num_kv_heads = a.num_kv_heads;
  options.head_dim = a.head_dim;
  const bool dense = std::ranges::find(a.dense_layers, layer_idx) != a.dense_layers.end();
  if (a.sparse == SparseKind::kNsa && !dense) {
    options.nsa = nn::NsaOptions{.block_length = a.nsa.block_length,
                                 .block_stride = a.nsa.block_stride,
                                 .select_block = a.nsa.select_block,
                                 .num_selected = a.nsa.num_selected,
                                 .window = a.nsa.window,
                                 .tie_up = a.nsa.tie_up,
                                 .num_select_groups = a.nsa.num_select_groups};
  }
  const YarnSection& y = shape.rope.yarn;
  options.rope = {.theta = shape.rope.theta,
                  .yarn = {.factor = y.factor,
                           .original_length = y.original_length,
                           .beta_fast = y.beta_fast,
                           .beta_slow = y.beta_slow,
                           .mscale = y.mscale,
                           .mscale_all_dim = y.mscale_all_dim}};
  options.max_positions = shape.max_positions;
  options.rms_norm_eps = shape.rms_norm_eps;
  options.init_std = shape.init_std;
  options.dtype = model.dtype;
  options.device = model.device;
  return options;
}

bool is_moe_layer(const ModelSection& shape, std::int64_t layer_idx) {
  return shape.moe.num_experts > 0 && layer_idx >= shape.moe.first_dense_layers;
}

nn::MoeOptions moe_options(const ModelOptions& model) {
  const MoeSection& moe = model.shape.moe;
  nn::MoeOptions options;
  options.hidden_size = model.shape.hidden_size;
  options.num_experts = moe.num_experts;
  options.num_shared = moe.num_shared;
  options.width = moe.intermediate_size;
  options.has_bias = moe.topk_method == TopkMethod::kNoauxTc;
  using Router = kernels::RouterOptions;
  options.router = {.score = moe.score == RouterScore::kSigmoid ? Router::Score::kSigmoid : Router::Score::kSoftmax,
                    .group_score = options.has_bias ? Router::GroupScore::kTopTwoSum : Router::GroupScore::kMax,
                    .top_k = moe.top_k,
                    .num_groups = moe.topk_method == TopkMethod::kGreedy ? 1 : moe.num_groups,
                    .topk_groups = moe.topk_method == TopkMethod::kGreedy ? 1 : moe.topk_groups,
                    .normalize = moe.normalize_topk,
                    .scaling = moe.routed_scaling,
                    .forced = model.forced_routing};
  options.balance = model.balance;
  options.init_std = model.shape.init_std;
  options.dtype = model.dtype;
  options.device = model.device;
  return options;
}

}  // namespace hadal::model
