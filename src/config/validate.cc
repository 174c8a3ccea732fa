#include "config/validate.h"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace hadal::config {
namespace {

/// A stored bf16 moment that shrinks by less than half the distance to its neighbour (at most 2^-8 of it) rounds back to itself.
constexpr double kLargestBf16Beta = 0.996;

class Rules {
 public:
  template <class... Args>
  void require(bool holds, std::vector<std::string> keys, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) violations.push_back({std::move(keys), fmt::format(format, std::forward<Args>(args)...)});
  }

  /// `small` divides `large`.
  void divides(std::string small_key, std::int64_t small, std::string large_key, std::int64_t large) {
    require(large % small == 0, {small_key, large_key}, "{} {} must divide {} {}", small_key, small, large_key, large);
  }

  /// `low` is at most `high`.
  void at_most(std::string low_key, std::int64_t low, std::string high_key, std::int64_t high) {
    require(low <= high, {low_key, high_key}, "{} {} must be at most {} {}", low_key, low, high_key, high);
  }

  std::vector<Violation> violations;
};

void check_attention(const ModelSection& model, Rules& rules) {
  const AttentionSection& a = model.attention;
  const std::string at = "model.attention.";
  const bool mla = a.kind == AttentionKind::kMla;
  if (mla) {
    rules.require(a.qk_rope_head_dim % 2 == 0, {at + "qk_rope_head_dim"},
                  "model.attention.qk_rope_head_dim {} must be even: rotation takes pairs", a.qk_rope_head_dim);
  } else {
    rules.require(a.head_dim % 2 == 0, {at + "head_dim"}, "model.attention.head_dim {} must be even: rotation takes pairs",
                  a.head_dim);
    rules.divides(at + "num_kv_heads", a.num_kv_heads, at + "num_heads", a.num_heads);
  }
  if (a.sparse == SparseKind::kNone) return;
  const NsaSection& nsa = a.nsa;
  const std::string in = at + "nsa.";
  rules.divides(in + "block_stride", nsa.block_stride, in + "block_length", nsa.block_length);
  rules.divides(in + "block_stride", nsa.block_stride, in + "select_block", nsa.select_block);
  rules.at_most(in + "block_length", nsa.block_length, in + "select_block", nsa.select_block);
  rules.require(nsa.num_selected >= 3, {in + "num_selected"},
                "model.attention.nsa.num_selected {} must be at least 3: the first and two local blocks are always among them",
                nsa.num_selected);
  if (mla) rules.divides(in + "num_select_groups", nsa.num_select_groups, at + "num_heads", a.num_heads);
  for (std::size_t i = 0; i < a.dense_layers.size(); ++i) {
    rules.require(a.dense_layers[i] < model.num_layers, {at + "dense_layers", "model.num_layers"},
                  "model.attention.dense_layers names layer {}; with model.num_layers {} the last one is {}", a.dense_layers[i],
                  model.num_layers, model.num_layers - 1);
    rules.require(i == 0 || a.dense_layers[i - 1] < a.dense_layers[i], {at + "dense_layers"},
                  "model.attention.dense_layers must ascend: {} stands before {}", i == 0 ? 0 : a.dense_layers[i - 1],
                  a.dense_layers[i]);
  }
}

void check_rope(const ModelSection& model, Rules& rules) {
  const YarnSection& yarn = model.rope.yarn;
  if (yarn.factor == 1.0) return;
  const std::string in = "model.rope.yarn.";
  rules.require(yarn.beta_fast > yarn.beta_slow, {in + "beta_fast", in + "beta_slow"},
                "model.rope.yarn.beta_fast {} must be above beta_slow {}", yarn.beta_fast, yarn.beta_slow);
  rules.require(yarn.beta_slow > 0.0, {in + "beta_slow"}, "model.rope.yarn.beta_slow {} must be above 0", yarn.beta_slow);
  rules.require(model.rope.theta > 1.0, {"model.rope.theta", in + "factor"},
                "model.rope.theta {} must be above 1 with model.rope.yarn.factor {}", model.rope.theta, yarn.factor);
}

void check_moe(const ModelSection& model, Rules& rules) {
  const MoeSection& moe = model.moe;
  if (moe.num_experts == 0) return;
  const std::string in = "model.moe.";
  rules.at_most(in + "first_dense_layers", moe.first_dense_layers, "model.num_layers", model.num_layers);
  rules.at_most(in + "top_k", moe.top_k, in + "num_experts", moe.num_experts);
  if (moe.topk_method == TopkMethod::kGreedy) return;
  rules.divides(in + "num_groups", moe.num_groups, in + "num_experts", moe.num_experts);
  rules.at_most(in + "topk_groups", moe.topk_groups, in + "num_groups", moe.num_groups);
  const std::int64_t per_group = moe.num_experts / moe.num_groups;
  rules.require(moe.top_k <= per_group * moe.topk_groups,
                {in + "top_k", in + "num_experts", in + "num_groups", in + "topk_groups"},
                "model.moe.top_k {} does not fit into topk_groups {} of num_groups {} groups with {} of num_experts {} each",
                moe.top_k, moe.topk_groups, moe.num_groups, per_group, moe.num_experts);
  rules.require(
      moe.topk_method != TopkMethod::kNoauxTc || per_group >= 2, {in + "topk_method", in + "num_experts", in + "num_groups"},
      "model.moe.topk_method noaux_tc scores a group by its two best experts: num_experts {} in num_groups {} leaves {}",
      moe.num_experts, moe.num_groups, per_group);
}

void check_data(const Config& config, Rules& rules) {
  const DataSection& data = config.data;
  const auto check_sources = [&](const std::vector<DataSource>& sources, const std::string& list) {
    double total = 0.0;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const std::string path = fmt::format("{}.{}.path", list, i);
      rules.require(!sources[i].path.empty(), {path, list}, "{} is missing: a token file (.h5) or a Megatron prefix", path);
      total += sources[i].weight;
    }
    rules.require(sources.empty() || total > 0.0, {list}, "{}: the weights add up to {}; at least one must be above 0", list,
                  total);
  };
  check_sources(data.sources, "data.sources");
  check_sources(data.validation_sources, "data.validation_sources");
  rules.require(data.validation_fraction == 0.0 || data.validation_sources.empty(),
                {"data.validation_fraction", "data.validation_sources"},
                "data.validation_fraction {} and {} data.validation_sources exclude each other", data.validation_fraction,
                data.validation_sources.size());
  rules.at_most("data.sequence_length", data.sequence_length, "model.max_positions", config.model.max_positions);
  rules.require(config.model.mtp.depth < data.sequence_length, {"data.sequence_length", "model.mtp.depth"},
                "data.sequence_length {} must be above model.mtp.depth {}", data.sequence_length, config.model.mtp.depth);
  rules.require(data.fim_rate == 0.0 || !data.tokenizer.empty(), {"data.fim_rate", "data.tokenizer"},
                "data.fim_rate {} needs data.tokenizer: fill-in-middle has tokens of its own", data.fim_rate);
}

void check_train(const Config& config, Rules& rules) {
  const TrainSection& train = config.train;
  rules.divides("train.micro_batch", train.micro_batch, "train.global_batch", train.global_batch);
  const BatchRampSection& ramp = train.batch_ramp;
  const std::string start = "train.batch_ramp.start", tokens = "train.batch_ramp.tokens";
  rules.require((ramp.start == 0) == (ramp.tokens == 0), {start, tokens},
                "train.batch_ramp.start {} and tokens {} belong together: both 0, or both above 0", ramp.start, ramp.tokens);
  if (ramp.start > 0) {
    rules.at_most(start, ramp.start, "train.global_batch", train.global_batch);
    const std::int64_t multiple = ramp.multiple > 0 ? ramp.multiple : train.micro_batch;
    const std::string name = ramp.multiple > 0 ? "train.batch_ramp.multiple" : "train.micro_batch";
    rules.divides("train.micro_batch", train.micro_batch, name, multiple);
    rules.divides(name, multiple, start, ramp.start);
    rules.divides(name, multiple, "train.global_batch", train.global_batch);
  }
}

void check_precision(const Config& config, Rules& rules) {
  const bool cuda = config.run.device == DeviceChoice::kCuda;
  rules.require(cuda || config.precision.compute != ComputeType::kBf16, {"precision.compute", "run.device"},
                "precision.compute bf16 needs run.device cuda: the CPU computes in f32 and f64");
  rules.require(!cuda || config.precision.compute != ComputeType::kF64, {"precision.compute", "run.device"},
                "precision.compute f64 needs run.device cpu: CUDA devices compute in bf16 and f32");
}

void check_optim(const Config& config, Rules& rules) {
  const OptimSection& optim = config.optim;
  const auto below_one = [&](const char* key, double value) {
    rules.require(value < 1.0, {key}, "{} {} must be below 1", key, value);
  };
  below_one("optim.beta1", optim.beta1);
  below_one("optim.beta2", optim.beta2);
  below_one("optim.ema_decay", optim.ema_decay);
  const auto forgets = [&](const char* key, double value) {
    rules.require(optim.moments != MomentType::kBf16 || value <= kLargestBf16Beta, {key, "optim.moments"},
                  "{} {} must be at most {} with optim.moments bf16: a moment would never decay otherwise", key, value, kLargestBf16Beta);
  };
  forgets("optim.beta1", optim.beta1);
  forgets("optim.beta2", optim.beta2);
  rules.require(optim.eps > 0.0, {"optim.eps"}, "optim.eps {} must be above 0", optim.eps);
  const LrScheduleSection& schedule = optim.schedule;
  const std::string in = "optim.schedule.";
  if (schedule.kind == LrScheduleKind::kWsd) {
    rules.require(schedule.warmup_steps + schedule.decay_steps <= config.train.steps,
                  {in + "decay_steps", in + "warmup_steps", "train.steps"},
                  "optim.schedule.warmup_steps {} and decay_steps {} do not fit into train.steps {}", schedule.warmup_steps,
                  schedule.decay_steps, config.train.steps);
  }
  if (schedule.kind == LrScheduleKind::kStep) {
    for (std::size_t i = 1; i < schedule.milestones.size(); ++i) {
      rules.require(schedule.milestones[i - 1] < schedule.milestones[i], {in + "milestones"},
                    "optim.schedule.milestones must ascend: {} stands before {}", schedule.milestones[i - 1],
                    schedule.milestones[i]);
    }
  }
}

void check_balance(const Config& config, Rules& rules) {
  const BalanceSection& balance = config.balance;
  const auto ascending = [&](const std::vector<ScheduledValue>& values, const std::string& key) {
    for (std::size_t i = 1; i < values.size(); ++i) {
      rules.require(values[i - 1].tokens < values[i].tokens, {key}, "{} must ascend in tokens: {} stands before {}", key,
                    values[i - 1].tokens, values[i].tokens);
    }
  };
  ascending(balance.bias_update_schedule, "balance.bias_update_schedule");
  ascending(balance.mtp_schedule, "balance.mtp_schedule");
  const bool by_device = balance.device_alpha > 0.0 || balance.communication_alpha > 0.0;
  if (config.model.moe.num_experts > 0 && by_device) {
    rules.divides("balance.num_devices", balance.num_devices, "model.moe.num_experts", config.model.moe.num_experts);
  }
}

void raise(const std::vector<Violation>& violations) {
  if (violations.empty()) return;
  std::string text;
  for (const Violation& violation : violations) text += fmt::format("{}{}", text.empty() ? "" : "\n", violation.message);
  throw UserError("{}", text);
}

}  // namespace

std::vector<Violation> find_violations(const ModelSection& model) {
  Rules rules;
  check_attention(model, rules);
  check_rope(model, rules);
  check_moe(model, rules);
  return std::move(rules.violations);
}

std::vector<Violation> find_violations(const Config& config) {
  Rules rules;
  rules.violations = find_violations(config.model);
  rules.require(!config.run.dir.empty(), {"run.dir"}, "run.dir must not be empty");
  check_data(config, rules);
  check_train(config, rules);
  check_precision(config, rules);
  check_optim(config, rules);
  check_balance(config, rules);
  return std::move(rules.violations);
}

void validate_config(const Config& config) { raise(find_violations(config)); }
void validate_model(const ModelSection& model) { raise(find_violations(model)); }

}  // namespace hadal::config
