// Every key of a Hadal YAML file, as typed structs. A struct's member gives a key's name, type and default; the line of
// `visit` below it gives range and help. Readers, `config explain`, `config schema` and the reference page all walk `visit`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/field.h"

namespace hadal {

enum class AttentionKind { kMla, kGqa };
enum class SparseKind { kNone, kNsa };
enum class RouterScore { kSigmoid, kSoftmax };
enum class TopkMethod { kNoauxTc, kGreedy, kGroupLimitedGreedy };
enum class LrScheduleKind { kConstant, kCosine, kStep, kWsd };
enum class ComputeType { kF32, kF64 };

/// The run: where it lives and what it starts from.
struct RunSection {
  std::string dir = "runs/default";
  std::string name;
  std::int64_t seed = 1;
  std::string init_from;
  std::int64_t threads = 0;

  template <class V>
  void visit(V& v) {
    v.key("dir", dir, "run directory: config, metrics, checkpoints; a run that finds its own checkpoint there resumes");
    v.key("name", name, "title in reports; empty: the last part of run.dir");
    v.key("seed", seed, at_least(0), "initial values, sample order, fill-in-middle");
    v.key("init_from", init_from, "CKPT whose weights start this run (fresh optimizer); only when run.dir has no checkpoint");
    v.key("threads", threads, between(0, 1024), "threads per rank; 0: the cores this rank may use");
  }
};

/// YaRN context extension (spec/model.md 4); off while factor is 1.
struct YarnSection {
  double factor = 1.0;
  std::int64_t original_length = 4096;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 1.0;

  template <class V>
  void visit(V& v) {
    v.key("factor", factor, between(1.0, 1e6), "context extension factor; 1 turns YaRN off");
    v.key("original_length", original_length, at_least(1), "context length of pre-training, tokens");
    v.key("beta_fast", beta_fast, between(0.0, 1e6), "rotations above which a frequency stays as it is");
    v.key("beta_slow", beta_slow, between(0.0, 1e6), "rotations below which a frequency is divided by factor");
    v.key("mscale", mscale, between(0.0, 100.0), "numerator of the cos/sin multiplier");
    v.key("mscale_all_dim", mscale_all_dim, between(0.0, 100.0), "temperature of the softmax scale");
  }
};

struct RopeSection {
  double theta = 10000.0;
  YarnSection yarn;

  template <class V>
  void visit(V& v) {
    v.key("theta", theta, between(1.0, 1e12), "base of the rotation frequencies");
    v.section("yarn", yarn, "context extension");
  }
};

/// Native sparse attention (spec/model.md 8 and 9).
struct NsaSection {
  std::int64_t block_length = 32;
  std::int64_t block_stride = 16;
  std::int64_t select_block = 64;
  std::int64_t num_selected = 16;
  std::int64_t window = 512;
  bool tie_up = false;
  std::int64_t num_select_groups = 1;

  template <class V>
  void visit(V& v) {
    v.key("block_length", block_length, between(1, 65536), "l: tokens in a compression block");
    v.key("block_stride", block_stride, between(1, 65536),
          "d: distance of compression blocks; divides block_length and select_block");
    v.key("select_block", select_block, between(1, 65536), "l': tokens in a selection block, at least block_length");
    v.key("num_selected", num_selected, between(1, 4096),
          "n: blocks that a query selects, the first and the two local ones included");
    v.key("window", window, between(1, 1 << 24), "w: tokens of the sliding window, the query's own included");
    v.key("tie_up", tie_up, "MLA: the three branches share one up-projection");
    v.key("num_select_groups", num_select_groups, between(1, 1024), "MLA: groups of heads that select together");
  }
};

struct AttentionSection {
  AttentionKind kind = AttentionKind::kMla;
  SparseKind sparse = SparseKind::kNone;
  std::vector<std::int64_t> dense_layers;
  std::int64_t num_heads = 4;
  std::int64_t q_lora_rank = 0;
  std::int64_t kv_lora_rank = 64;
  std::int64_t qk_nope_head_dim = 32;
  std::int64_t qk_rope_head_dim = 16;
  std::int64_t v_head_dim = 32;
  std::int64_t num_kv_heads = 4;
  std::int64_t head_dim = 64;
  NsaSection nsa;

  template <class V>
  void visit(V& v) {
    v.key("kind", kind, {{"mla", AttentionKind::kMla}, {"gqa", AttentionKind::kGqa}},
          "multi-head latent or grouped-query attention");
    v.key("sparse", sparse, {{"none", SparseKind::kNone}, {"nsa", SparseKind::kNsa}},
          "native sparse attention in every layer but dense_layers");
    v.numbers("dense_layers", dense_layers, at_least(0), "layers that stay dense when sparse is nsa");
    v.key("num_heads", num_heads, between(1, 4096), "query heads H");
    v.key("q_lora_rank", q_lora_rank, between(0, 1 << 20), "MLA: width of the query latent; 0 projects queries directly");
    v.key("kv_lora_rank", kv_lora_rank, between(1, 1 << 20), "MLA: width of the key/value latent");
    v.key("qk_nope_head_dim", qk_nope_head_dim, between(1, 4096), "MLA: key width per head without rotation");
    v.key("qk_rope_head_dim", qk_rope_head_dim, between(2, 4096), "MLA: rotated key width, even, shared by the heads");
    v.key("v_head_dim", v_head_dim, between(1, 4096), "value width per head");
    v.key("num_kv_heads", num_kv_heads, between(1, 4096), "GQA: key/value groups; divides num_heads");
    v.key("head_dim", head_dim, between(2, 4096), "GQA: query and key width per head, even");
    v.section("nsa", nsa, "native sparse attention");
  }
};

struct MoeSection {
  std::int64_t num_experts = 0;
  std::int64_t num_shared = 1;
  std::int64_t top_k = 2;
  std::int64_t intermediate_size = 128;
  std::int64_t first_dense_layers = 1;
  RouterScore score = RouterScore::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  std::int64_t num_groups = 1;
  std::int64_t topk_groups = 1;
  bool normalize_topk = true;
  double routed_scaling = 1.0;

  template <class V>
  void visit(V& v) {
    v.key("num_experts", num_experts, between(0, 65536), "routed experts N_r; 0: every layer is dense");
    v.key("num_shared", num_shared, between(0, 64), "shared experts, stored as one wide SwiGLU");
    v.key("top_k", top_k, between(1, 64), "routed experts per token");
    v.key("intermediate_size", intermediate_size, between(1, 1 << 20), "width of one expert");
    v.key("first_dense_layers", first_dense_layers, between(0, 4096), "leading layers with a dense FFN");
    v.key("score", score, {{"sigmoid", RouterScore::kSigmoid}, {"softmax", RouterScore::kSoftmax}},
          "affinity: V3 sigmoid, V2 softmax");
    v.key("topk_method", topk_method,
          {{"noaux_tc", TopkMethod::kNoauxTc},
           {"greedy", TopkMethod::kGreedy},
           {"group_limited_greedy", TopkMethod::kGroupLimitedGreedy}},
          "V3: bias and sum of the two best per group; V2: plain, or best per group");
    v.key("num_groups", num_groups, between(1, 4096), "expert groups; divides num_experts");
    v.key("topk_groups", topk_groups, between(1, 4096), "groups a token may use");
    v.key("normalize_topk", normalize_topk, "divide the chosen scores by their sum");
    v.key("routed_scaling", routed_scaling, between(0.0, 1000.0), "factor on the routed experts' weights");
  }
};

struct MtpSection {
  std::int64_t depth = 0;

  template <class V>
  void visit(V& v) {
    v.key("depth", depth, between(0, 8), "multi-token prediction modules after the last layer");
  }
};

/// Shape of the model (spec/model.md 1-9).
struct ModelSection {
  std::int64_t vocab_size = 2048;
  std::int64_t hidden_size = 128;
  std::int64_t num_layers = 4;
  std::int64_t intermediate_size = 384;
  std::int64_t max_positions = 4096;
  double rms_norm_eps = 1e-6;
  double init_std = 0.02;
  AttentionSection attention;
  RopeSection rope;
  MoeSection moe;
  MtpSection mtp;

  template <class V>
  void visit(V& v) {
    v.key("vocab_size", vocab_size, between(2, 1 << 24), "rows of the embedding and of the head");
    v.key("hidden_size", hidden_size, between(1, 1 << 20), "width d of the residual stream");
    v.key("num_layers", num_layers, between(1, 4096), "transformer blocks, MTP modules apart");
    v.key("intermediate_size", intermediate_size, between(1, 1 << 22), "width of a dense FFN");
    v.key("max_positions", max_positions, at_least(1), "longest context, tokens");
    v.key("rms_norm_eps", rms_norm_eps, between(0.0, 1.0), "added to the mean square; engines expect 1e-6");
    v.key("init_std", init_std, between(0.0, 10.0), "standard deviation of initial matrices (V3: 0.006)");
    v.section("attention", attention, "attention of every layer");
    v.section("rope", rope, "rotary positions, interleaved");
    v.section("moe", moe, "mixture of experts");
    v.section("mtp", mtp, "multi-token prediction");
  }
};

struct DataSource {
  std::string path;
  double weight = 1.0;

  template <class V>
  void visit(V& v) {
    v.key("path", path, "token file (.h5) or Megatron prefix");
    v.key("weight", weight, between(0.0, 1e9), "share of this source's samples in the blend, relative to the other weights");
  }
};

struct DataSection {
  std::vector<DataSource> sources;
  std::vector<DataSource> validation_sources;
  double validation_fraction = 0.0;
  std::int64_t sequence_length = 256;
  double fim_rate = 0.0;
  std::string tokenizer;

  template <class V>
  void visit(V& v) {
    v.list("sources", sources, "training token files");
    v.list("validation_sources", validation_sources, "validation token files");
    v.key("validation_fraction", validation_fraction, between(0.0, 0.5),
          "share of the training documents held out for validation");
    v.key("sequence_length", sequence_length, between(1, 1 << 24), "tokens per sample S");
    v.key("fim_rate", fim_rate, between(0.0, 1.0), "share of documents turned into fill-in-middle (PSM)");
    v.key("tokenizer", tokenizer, "tokenizer directory; needed for fill-in-middle, samples, export and bits per byte");
  }
};

struct BatchRampSection {
  std::int64_t start = 0;
  std::int64_t tokens = 0;

  template <class V>
  void visit(V& v) {
    v.key("start", start, at_least(0), "global batch at the first step, sequences; 0: no ramp");
    v.key("tokens", tokens, at_least(0), "tokens over which the batch grows linearly to train.global_batch");
  }
};

struct TrainSection {
  std::int64_t steps = 1000;
  std::int64_t global_batch = 8;
  std::int64_t micro_batch = 8;
  BatchRampSection batch_ramp;
  std::int64_t log_interval = 10;
  std::int64_t eval_interval = 0;
  std::int64_t eval_tokens = 65536;

  template <class V>
  void visit(V& v) {
    v.key("steps", steps, at_least(1), "optimizer steps in all");
    v.key("global_batch", global_batch, at_least(1), "sequences per optimizer step over all ranks");
    v.key("micro_batch", micro_batch, at_least(1), "sequences per forward pass and rank");
    v.section("batch_ramp", batch_ramp, "growth of the global batch");
    v.key("log_interval", log_interval, at_least(1), "steps between progress lines (metrics.jsonl has every step)");
    v.key("eval_interval", eval_interval, at_least(0),
          "steps between validations; 0: only at the end, if there is validation data");
    v.key("eval_tokens", eval_tokens, at_least(1), "tokens per validation, at most");
  }
};

struct LrScheduleSection {
  LrScheduleKind kind = LrScheduleKind::kCosine;
  std::int64_t warmup_steps = 0;
  double min_ratio = 0.1;
  std::int64_t decay_steps = 0;
  std::vector<double> milestones{0.8, 0.9};
  double factor = 0.316;

  template <class V>
  void visit(V& v) {
    v.key("kind", kind,
          {{"constant", LrScheduleKind::kConstant},
           {"cosine", LrScheduleKind::kCosine},
           {"step", LrScheduleKind::kStep},
           {"wsd", LrScheduleKind::kWsd}},
          "after the warm-up: constant, cosine to min_ratio, factor at each milestone, or warm-up-stable-decay");
    v.key("warmup_steps", warmup_steps, at_least(0), "linear from 0");
    v.key("min_ratio", min_ratio, between(0.0, 1.0), "cosine, wsd: final rate as a share of optim.lr");
    v.key("decay_steps", decay_steps, at_least(0),
          "wsd: steps of the final linear decay; cosine: steps from warm-up to min_ratio, 0: all that remain");
    v.numbers("milestones", milestones, between(0.0, 1.0),
              "step: shares of train.steps at which the rate is multiplied by factor");
    v.key("factor", factor, between(0.0, 1.0), "step: multiplier at each milestone");
  }
};

struct OptimSection {
  double lr = 3e-4;
  LrScheduleSection schedule;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;
  double ema_decay = 0.0;

  template <class V>
  void visit(V& v) {
    v.key("lr", lr, between(0.0, 1e3), "peak learning rate");
    v.section("schedule", schedule, "learning rate over the steps");
    v.key("beta1", beta1, between(0.0, 1.0), "AdamW first moment");
    v.key("beta2", beta2, between(0.0, 1.0), "AdamW second moment");
    v.key("eps", eps, between(0.0, 1.0), "AdamW denominator");
    v.key("weight_decay", weight_decay, between(0.0, 10.0),
          "decoupled decay; norm gains, biases and the balancing bias are exempt");
    v.key("clip_norm", clip_norm, between(0.0, 1e9), "global gradient norm is clipped to this; 0: never");
    v.key("ema_decay", ema_decay, between(0.0, 1.0), "moving average of the parameters, kept beside them; 0: none");
  }
};

/// A value that changes at given tokens: {tokens: T, value: V} entries, each in force from T on.
struct ScheduledValue {
  std::int64_t tokens = 0;
  double value = 0.0;

  template <class V>
  void visit(V& v) {
    v.key("tokens", tokens, at_least(0), "in force from this many trained tokens on");
    v.key("value", value, between(0.0, 1e9), "the value");
  }
};

/// Load balance and the auxiliary losses (spec/model.md 6 and 7).
struct BalanceSection {
  double bias_update_speed = 1e-3;
  std::vector<ScheduledValue> bias_update_schedule;
  double sequence_alpha = 1e-4;
  double expert_alpha = 0.0;
  double device_alpha = 0.0;
  double communication_alpha = 0.0;
  std::int64_t num_devices = 1;
  double mtp_weight = 0.3;
  std::vector<ScheduledValue> mtp_schedule;

  template <class V>
  void visit(V& v) {
    v.key("bias_update_speed", bias_update_speed, between(0.0, 1.0), "gamma of the loss-free balancer; 0 freezes the bias");
    v.list("bias_update_schedule", bias_update_schedule, "later values of bias_update_speed");
    v.key("sequence_alpha", sequence_alpha, between(0.0, 10.0), "V3 sequence-wise balance loss");
    v.key("expert_alpha", expert_alpha, between(0.0, 10.0), "V2 expert-level balance loss");
    v.key("device_alpha", device_alpha, between(0.0, 10.0), "V2 device-level balance loss");
    v.key("communication_alpha", communication_alpha, between(0.0, 10.0), "V2 communication balance loss");
    v.key("num_devices", num_devices, between(1, 4096), "V2: groups D of the device and communication losses");
    v.key("mtp_weight", mtp_weight, between(0.0, 10.0), "lambda: weight of the mean MTP loss");
    v.list("mtp_schedule", mtp_schedule, "later values of mtp_weight");
  }
};

struct PrecisionSection {
  ComputeType compute = ComputeType::kF32;

  template <class V>
  void visit(V& v) {
    v.key("compute", compute, {{"f32", ComputeType::kF32}, {"f64", ComputeType::kF64}},
          "dtype of weights, activations and gradients");
  }
};

struct CheckpointSection {
  std::int64_t interval = 0;
  std::int64_t keep_last = 2;

  template <class V>
  void visit(V& v) {
    v.key("interval", interval, at_least(0), "steps between checkpoints; 0: only at the end and on a stop signal");
    v.key("keep_last", keep_last, at_least(1), "complete checkpoints kept");
  }
};

/// A whole run.
struct Config {
  RunSection run;
  ModelSection model;
  DataSection data;
  TrainSection train;
  OptimSection optim;
  BalanceSection balance;
  PrecisionSection precision;
  CheckpointSection checkpoint;

  template <class V>
  void visit(V& v) {
    v.section("run", run, "where the run lives and what it starts from");
    v.section("model", model, "shape of the model");
    v.section("data", data, "what it is trained on");
    v.section("train", train, "steps, batches, intervals");
    v.section("optim", optim, "AdamW");
    v.section("balance", balance, "load balance of the experts and weights of the auxiliary losses");
    v.section("precision", precision, "number formats");
    v.section("checkpoint", checkpoint, "when to save, what to keep");
  }
};

}  // namespace hadal
