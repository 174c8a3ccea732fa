#include "tests/verify/small_models.h"

namespace hadal::verify::test {
namespace {

/// MLA, V3 router with a balancer that moves fast, shared expert, one dense layer.
Config base() {
  Config config;
  config.model.num_layers = 4;
  config.model.attention.q_lora_rank = 0;
  config.model.moe.num_experts = 16;
  config.model.moe.num_shared = 1;
  config.model.moe.top_k = 2;
  config.model.moe.first_dense_layers = 1;
  config.balance.sequence_alpha = 0.05;
  config.balance.bias_update_speed = 0.05;
  config.optim.lr = 4e-3;
  config.run.seed = 7;
  return config;
}

Config with_nsa(Config config) {
  config.model.attention.sparse = SparseKind::kNsa;
  config.model.attention.dense_layers = {0};
  return config;
}

Config with_gqa(Config config) {
  config.model.attention.kind = AttentionKind::kGqa;
  config.model.attention.num_heads = 8;
  config.model.attention.num_kv_heads = 4;
  return config;
}

Config with_v2_router(Config config) {
  MoeSection& moe = config.model.moe;
  moe.score = RouterScore::kSoftmax;
  moe.topk_method = TopkMethod::kGroupLimitedGreedy;
  moe.num_groups = 2;
  moe.topk_groups = 1;
  moe.normalize_topk = false;
  moe.routed_scaling = 4.0;
  config.balance.sequence_alpha = 0;
  config.balance.bias_update_speed = 0;
  config.balance.expert_alpha = 0.05;
  config.balance.device_alpha = 0.04;
  config.balance.communication_alpha = 0.03;
  config.balance.num_devices = 2;
  return config;
}

Config with(Config config, void (*change)(ModelSection&)) {
  change(config.model);
  return config;
}

}  // namespace

ParallelSection Split::section() const {
  ParallelSection p;
  p.tp = tp;
  p.cp = cp;
  p.pp = pp;
  p.ep = ep;
  p.etp = etp;
  p.schedule = schedule;
  p.stages = stages;
  p.ranks_per_node = ranks_per_node;
  p.expert_capacity = expert_capacity;
  return p;
}

std::vector<Kind> kinds() {
  return {{"mla", base()},
          {"mla_q_lora", with(base(), [](ModelSection& m) { m.attention.q_lora_rank = 6; })},
          {"mla_nsa", with_nsa(base())},
          {"mla_nsa_groups", with(with_nsa(base()), [](ModelSection& m) { m.attention.nsa.num_select_groups = 2; })},
          {"mla_nsa_tied", with(with_nsa(base()), [](ModelSection& m) { m.attention.nsa.tie_up = true; })},
          {"gqa", with_gqa(base())},
          {"gqa_nsa", with_nsa(with_gqa(base()))},
          {"v2_router", with_v2_router(base())},
          {"mtp", with(base(), [](ModelSection& m) { m.mtp.depth = 2; })},
          {"dense", with(base(), [](ModelSection& m) { m.moe.num_experts = 0; })},
          {"everything", everything()}};
}

Config everything() {
  return with(with_nsa(base()), [](ModelSection& m) {
    m.attention.q_lora_rank = 6;
    m.attention.nsa.num_select_groups = 2;
    m.moe.num_groups = 2;
    m.moe.topk_groups = 1;
    m.mtp.depth = 2;
  });
}

}  // namespace hadal::verify::test
