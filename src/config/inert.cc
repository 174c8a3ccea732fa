#include "config/inert.h"

#include <fmt/core.h>

#include <utility>

namespace hadal::config {
namespace {

class Collector {
 public:
  void add(const std::string& reason, const std::string& prefix, std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) keys.push_back({prefix + std::string(name), reason});
  }

  std::vector<InertKey> keys;
};

void collect_model(const ModelSection& model, Collector& inert) {
  const AttentionSection& a = model.attention;
  const std::string attention = "model.attention.";
  if (a.kind == AttentionKind::kMla) {
    inert.add("model.attention.kind is mla", attention, {"num_kv_heads", "head_dim"});
  } else {
    inert.add("model.attention.kind is gqa", attention, {"q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"});
  }
  if (a.sparse == SparseKind::kNone) {
    inert.add("model.attention.sparse is none", attention, {"nsa", "dense_layers"});
  } else if (a.kind == AttentionKind::kGqa) {
    inert.add("model.attention.kind is gqa", attention, {"nsa.tie_up", "nsa.num_select_groups"});
  }
  if (model.rope.yarn.factor == 1.0) {
    inert.add("model.rope.yarn.factor is 1", "model.rope.yarn.",
              {"original_length", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"});
  }
  const MoeSection& moe = model.moe;
  if (moe.num_experts == 0) {
    inert.add("model.moe.num_experts is 0", "model.moe.",
              {"num_shared", "top_k", "intermediate_size", "first_dense_layers", "score", "topk_method", "num_groups",
               "topk_groups", "normalize_topk", "routed_scaling"});
  } else if (moe.topk_method == TopkMethod::kGreedy) {
    inert.add("model.moe.topk_method is greedy", "model.moe.", {"num_groups", "topk_groups"});
  }
  const bool all_moe = moe.num_experts > 0 && moe.first_dense_layers == 0;
  if (all_moe) inert.add("model.moe.first_dense_layers is 0: no layer is dense", "model.", {"intermediate_size"});
}

void collect_optim(const OptimSection& optim, Collector& inert) {
  const std::string schedule = "optim.schedule.";
  switch (optim.schedule.kind) {
    case LrScheduleKind::kConstant:
      inert.add("optim.schedule.kind is constant", schedule, {"min_ratio", "decay_steps", "milestones", "factor"});
      break;
    case LrScheduleKind::kCosine:
      inert.add("optim.schedule.kind is cosine", schedule, {"milestones", "factor"});
      break;
    case LrScheduleKind::kStep:
      inert.add("optim.schedule.kind is step", schedule, {"min_ratio", "decay_steps"});
      break;
    case LrScheduleKind::kWsd:
      inert.add("optim.schedule.kind is wsd", schedule, {"milestones", "factor"});
      break;
  }
}

void collect_balance(const Config& config, Collector& inert) {
  const BalanceSection& balance = config.balance;
  const std::string in = "balance.";
  if (config.model.moe.num_experts == 0) {
    inert.add("model.moe.num_experts is 0", in,
              {"bias_update_speed", "bias_update_schedule", "sequence_alpha", "expert_alpha", "device_alpha",
               "communication_alpha", "num_devices"});
  } else {
    if (config.model.moe.topk_method != TopkMethod::kNoauxTc) {
      inert.add("model.moe.topk_method is not noaux_tc: there is no balancing bias", in,
                {"bias_update_speed", "bias_update_schedule"});
    }
    if (balance.device_alpha == 0.0 && balance.communication_alpha == 0.0) {
      inert.add("balance.device_alpha and communication_alpha are 0", in, {"num_devices"});
    }
  }
  if (config.model.mtp.depth == 0) inert.add("model.mtp.depth is 0", in, {"mtp_weight", "mtp_schedule"});
}

void collect_parallel(const ParallelSection& p, Collector& inert) {
  if (p.pp == 1) {
    inert.add("parallel.pp is 1", "parallel.", {"schedule", "chunks", "stages"});
  } else if (p.schedule != ScheduleKind::kInterleaved) {
    inert.add("parallel.schedule is not interleaved", "parallel.", {"chunks"});
  }
}

bool inside(std::string_view path, std::string_view section) {
  return path == section || (path.starts_with(section) && path[section.size()] == '.');
}

}  // namespace

std::vector<InertKey> inert_keys(const Config& config) {
  Collector inert;
  collect_model(config.model, inert);
  const bool validates = config.data.validation_fraction > 0.0 || !config.data.validation_sources.empty();
  if (!validates) inert.add("there is no validation data", "train.", {"eval_interval", "eval_tokens"});
  collect_optim(config.optim, inert);
  collect_balance(config, inert);
  collect_parallel(config.parallel, inert);
  if (config.run.device == DeviceChoice::kHost) {
    inert.add("run.device is cpu", "parallel.", {"device_transport"});
    inert.add("run.device is cpu", "run.", {"cuda_graph"});
  }
  if (config.train.batch_ramp.start == 0) inert.add("train.batch_ramp.start is 0", "train.", {"batch_ramp.multiple"});
  return std::move(inert.keys);
}

std::string_view inert_reason(const std::vector<InertKey>& inert, std::string_view path) {
  for (const InertKey& key : inert) {
    if (inside(path, key.path)) return key.reason;
  }
  return {};
}

std::vector<std::string> describe_inert(const Config& config, const std::map<std::string, std::string>& origins) {
  const std::vector<InertKey> inert = inert_keys(config);
  std::vector<std::string> reasons, lists;
  for (const auto& [path, place] : origins) {
    const std::string reason(inert_reason(inert, path));
    if (reason.empty()) continue;
    std::size_t group = 0;
    while (group < reasons.size() && reasons[group] != reason) ++group;
    if (group == reasons.size()) {
      reasons.push_back(reason);
      lists.emplace_back();
    }
    lists[group] += fmt::format("{}{} ({})", lists[group].empty() ? "" : ", ", path, place);
  }
  std::vector<std::string> sentences;
  for (std::size_t i = 0; i < reasons.size(); ++i)
    sentences.push_back(fmt::format("no effect, since {}: {}", reasons[i], lists[i]));
  return sentences;
}

}  // namespace hadal::config
