// Every key of a Hadal YAML file, as typed structs. A struct's member gives a key's name, type and default; the line of
// `visit` below it gives range and help. Readers, `config explain`, `config schema` and the reference page all walk `visit`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/field.h"
#include "config/model_section.h"
#include "config/parallel_section.h"

namespace hadal {

enum class LrScheduleKind { kConstant, kCosine, kStep, kWsd };
enum class DeviceChoice { kHost, kCuda };
enum class ComputeType { kF32, kF64, kBf16 };
enum class MomentType { kCompute, kBf16 };

/// The run: where it lives and what it starts from.
struct RunSection {
  std::string dir = "runs/default";
  std::string name;
  std::int64_t seed = 1;
  std::string init_from;
  DeviceChoice device = DeviceChoice::kHost;
  bool deterministic = true;
  bool cuda_graph = false;
  std::int64_t threads = 0;
  std::int64_t hang_timeout_s = 600;

  template <class V>
  void visit(V& v) {
    v.key("dir", dir, "run directory, relative to the working directory; a run that finds its own checkpoint there resumes");
    v.key("name", name, "title in reports; empty: the last part of run.dir");
    v.key("seed", seed, at_least(0), "initial values, sample order, fill-in-middle");
    v.key("init_from", init_from, "CKPT whose weights start this run (fresh optimizer); only when run.dir has no checkpoint");
    v.key("device", device, {{"cpu", DeviceChoice::kHost}, {"cuda", DeviceChoice::kCuda}},
          "where the ranks compute; cuda: rank i of a host takes the i-th GPU that it sees, in turn");
    v.key("deterministic", deterministic,
          "the same bits in every run; false: with run.device cuda, faster kernels may be taken whose last bits differ from run to run");
    v.key("cuda_graph", cuda_graph,
          "with run.device cuda and one rank: record a step's device work as a CUDA graph and launch it as a whole, from the second step of a batch shape on");
    v.key("threads", threads, between(0, 1024), "threads per rank; 0: the cores this rank may use");
    v.key("hang_timeout_s", hang_timeout_s, at_least(0),
          "with several ranks: seconds without a sign of progress after which a rank that others wait for ends the job with code 86; 0: never");
  }
};

struct DataSource {
  std::string path;
  double weight = 1.0;

  template <class V>
  void visit(V& v) {
    v.key("path", path, "token file (.h5) or Megatron prefix, relative to the working directory");
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
  std::int64_t multiple = 0;

  template <class V>
  void visit(V& v) {
    v.key("start", start, at_least(0), "global batch at the first step, sequences; 0: no ramp");
    v.key("tokens", tokens, at_least(0), "tokens over which the batch grows linearly to train.global_batch");
    v.key("multiple", multiple, at_least(0),
          "batches on the way are rounded down to a multiple of this, whatever the layout; 0: of train.micro_batch");
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
  MomentType moments = MomentType::kCompute;

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
    v.key("moments", moments, {{"compute", MomentType::kCompute}, {"bf16", MomentType::kBf16}},
          "dtype in which AdamW's moments are stored; bf16 is rounded to nearest even, arithmetic stays in f32 (f64 with precision.compute f64)");
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
    v.key("compute", compute, {{"f32", ComputeType::kF32}, {"f64", ComputeType::kF64}, {"bf16", ComputeType::kBf16}},
          "dtype of weights and activations; bf16 (run.device cuda alone): sums, gradients of parameters and the optimizer stay in f32");
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
  ParallelSection parallel;

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
    v.section("parallel", parallel, "how the model is spread over the ranks");
  }
};

}  // namespace hadal
