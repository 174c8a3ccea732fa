// The planned memory of a rank against what the allocator counted in a real training step.
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <vector>

#include "comm/local/local_group.h"
#include "config/load.h"
#include "core/allocator.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "model/layer_options.h"
#include "optim/sharded_adamw.h"
#include "plan/forecast.h"
#include "schedule/make_plan.h"
#include "train/step.h"

namespace hadal::plan {
namespace {

constexpr const char* kBase = R"(
model:
  vocab_size: 1000
  hidden_size: 96
  num_layers: 3
  intermediate_size: 256
  max_positions: 256
  attention: {kind: mla, num_heads: 4, q_lora_rank: 48, kv_lora_rank: 32, qk_nope_head_dim: 24, qk_rope_head_dim: 16, v_head_dim: 24}
data: {sequence_length: 128}
train: {global_batch: 16, micro_batch: 2}
precision: {compute: f32}
)";

const std::vector<std::string> kMoe{
    "model.moe={num_experts: 8, num_shared: 1, top_k: 2, intermediate_size: 64, first_dense_layers: 1, num_groups: 4, "
    "topk_groups: 2}"};
const std::vector<std::string> kNsa{
    "model.attention.sparse=nsa",
    "model.attention.nsa={block_length: 16, block_stride: 8, select_block: 16, num_selected: 3, window: 32}"};
const std::vector<std::string> kGqa{"model.attention={kind: gqa, num_heads: 4, num_kv_heads: 2, head_dim: 32, v_head_dim: 32}"};
const std::vector<std::string> kMtp{"model.mtp.depth=1"};

using Overrides = std::vector<std::string>;

Overrides all(std::initializer_list<Overrides> lists) {
  Overrides result;
  for (const Overrides& list : lists) result.insert(result.end(), list.begin(), list.end());
  return result;
}

Config config_of(const Overrides& overrides) { return load_config_text(kBase, "base.yaml", overrides).config; }

data::Batch synthetic_rows(const Config& config, std::int64_t rows) {
  const std::int64_t seq = config.data.sequence_length;
  const Shape shape{rows, seq};
  data::Batch batch{Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kU8),
                    Tensor::zeros(shape, DType::kI32), Tensor::zeros(shape, DType::kI32)};
  const Random random(7, RandomPurpose::kSynthetic);
  for (std::int64_t i = 0; i < rows * seq; ++i) {
    const auto id = [&](std::int64_t draw) {
      return static_cast<std::int32_t>(
          random.below(static_cast<std::uint64_t>(draw), static_cast<std::uint64_t>(config.model.vocab_size)));
    };
    batch.tokens.as<std::int32_t>()[i] = id(2 * i);
    batch.targets.as<std::int32_t>()[i] = id(2 * i + 1);
    batch.loss_mask.as<std::uint8_t>()[i] = 1;
  }
  return batch;
}

/// By rank: peak of the second of two steps.
std::vector<double> measured(const Config& config, int ranks) {
  std::vector<double> peaks(static_cast<std::size_t>(ranks));
  const int threads = num_threads();
  set_num_threads(1);
  comm::run_local_group(ranks, [&](comm::Communicator& world) {
    train::RunModel run(
        config,
        [&] {
          model::ModelOptions options = model::model_options(config);
          options.forced_routing = true;  // evenly, as the plan expects
          return options;
        }(),
        world);
    run.model().initialize(1);
    optim::ShardedAdamW optimizer(config.optim, train::optimizer_groups(run), world);
    train::TrainStep step(run, optimizer);
    Stream stream;
    const std::int64_t dp = run.layout().grid.dp(), rows = config.train.global_batch;
    const data::Batch batch = synthetic_rows(config, rows / dp + (run.place().dp_rank < rows % dp ? 1 : 0));
    const train::StepInput input{.lr = 1e-4, .mtp_weight = 0.3, .bias_speed = 1e-3};
    step.run(stream, batch, rows, config.train.micro_batch, input);
    reset_thread_peak();
    step.run(stream, batch, rows, config.train.micro_batch, input);
    optimizer.wait_values();
    peaks[static_cast<std::size_t>(world.rank())] = static_cast<double>(thread_memory_stats().peak_bytes);
  });
  set_num_threads(threads);
  return peaks;
}

MachineSection this_machine() {
  MachineSection machine;
  machine.name = "test";
  machine.memory_gib = 1;
  machine.memory_bandwidth = 1e10;
  machine.peak.f32 = machine.peak.f64 = 1e11;
  machine.link.intra = machine.link.inter = 1e9;
  machine.ranks_per_node = 8;
  return machine;
}

/// By rank.
std::vector<double> planned(const Config& config, int ranks) {
  const ForecastOptions options{.machine = this_machine(), .expert_imbalance = 1.0, .threads = 1};
  const Layout layout = make_layout(config, ranks);
  std::vector<double> peaks;
  for (int rank = 0; rank < ranks; ++rank) {
    const parallel::Place place = layout.grid.place(rank);
    const RankShape shape(config, layout, options, place.cp_rank);
    const schedule::Plan plan =
        schedule::make_plan(layout.request(num_micro_batches(config, layout.grid, config.train.global_batch, place.dp_rank)));
    std::map<std::int64_t, StageMemory> stages;
    for (const std::int64_t s : layout.stage_placement(place.pp_rank).slots) {
      stages[s] = stage_memory(shape, layout.stages[static_cast<std::size_t>(s)], plan.placement.is_last(static_cast<int>(s)));
    }
    peaks.push_back(static_cast<double>(rank_memory(config, layout, shape, place, plan, stages).peak));
  }
  return peaks;
}

void compare(const Overrides& overrides, int ranks = 1) {
  std::string text;
  for (const std::string& one : overrides) text += one + " ";
  SCOPED_TRACE(text);
  const Config config = config_of(overrides);
  const std::vector<double> plan = planned(config, ranks), real = measured(config, ranks);
  fmt::print("{:+6.2f} % on {} ranks: {}\n", 100 * (plan[0] / real[0] - 1), ranks, text);
  for (std::size_t rank = 0; rank < plan.size(); ++rank) {
    EXPECT_NEAR(plan[rank] / real[rank], 1.0, 0.05)
        << "rank " << rank << ": " << plan[rank] << " planned, " << real[rank] << " measured";
  }
}

TEST(PlanMemory, OneRankOfEveryKindOfModel) {
  for (const char* dtype : {"precision.compute=f32", "precision.compute=f64"}) {
    const Overrides type{dtype};
    for (const Overrides& model : {Overrides{}, kMoe, kNsa, kGqa, all({kGqa, kNsa}), kMtp, all({kNsa, kMoe, kMtp})})
      compare(all({type, model}));
  }
}

Overrides parallel_of(const char* text) { return {std::string("parallel={") + text + "}"}; }

TEST(PlanMemory, DataParallelRanksShareTheOptimizer) {
  compare({"optim.ema_decay=0.9"}, 2);
  compare(all({kMoe, {"optim.moments=bf16", "train.micro_batch=1"}}), 4);
}

TEST(PlanMemory, TensorParallelRanks) {
  for (const Overrides& model : {Overrides{}, all({kNsa, kMoe, kMtp}), all({kGqa, kNsa})})
    compare(all({model, parallel_of("tp: 2")}), 2);
}

TEST(PlanMemory, ContextParallelRanks) {
  for (const Overrides& model : {Overrides{}, kGqa, all({kNsa, kMoe}), all({kGqa, kNsa, kMtp})})
    compare(all({model, parallel_of("cp: 2")}), 2);
}

TEST(PlanMemory, ExpertParallelRanks) {
  compare(all({kMoe, parallel_of("ep: 2")}), 2);
  compare(all({kMoe, parallel_of("ep: 4, ranks_per_node: 2")}), 4);
  compare(all({kMoe, parallel_of("ep: 2, etp: 2, tp: 2")}), 4);
}

TEST(PlanMemory, RoomForExperts) {
  compare(all({kMoe, parallel_of("ep: 2, expert_capacity: 1.5")}), 2);
  compare(all({kMoe, parallel_of("ep: 4, ranks_per_node: 2, expert_capacity: 2")}), 4);
  compare(all({kMoe, parallel_of("ep: 2, etp: 2, tp: 2, expert_capacity: 1.25")}), 4);
}

TEST(PlanMemory, EverySchedule) {
  for (const char* schedule : {"gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "dualpipe_v", "dualpipe"}) {
    const std::string parallel = std::string("pp: 2, schedule: ") + schedule;
    compare(all({kMoe, kMtp, parallel_of(parallel.c_str())}), 2);
  }
}

}  // namespace
}  // namespace hadal::plan
