// The planned memory of a rank against what the allocator counted in a real training step.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/load.h"
#include "tests/support/plan_memory.h"

namespace hadal::plan {
namespace {

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

Config config_of(const Overrides& overrides) { return load_config_text(test::kSmallModel, "base.yaml", overrides).config; }

MachineSection cpu_core() {
  MachineSection machine;
  machine.name = "test";
  machine.memory_gib = 1;
  machine.memory_bandwidth = 1e10;
  machine.peak.f32 = machine.peak.f64 = 1e11;
  machine.link.intra = machine.link.inter = 1e9;
  machine.ranks_per_node = 8;
  return machine;
}

void compare(const Overrides& overrides, int ranks = 1) {
  std::string text;
  for (const std::string& one : overrides) text += one + " ";
  SCOPED_TRACE(text);
  const Config config = config_of(overrides);
  const std::vector<double> plan = test::planned_peaks(config, ranks, cpu_core()), real = test::measured_peaks(config, ranks);
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
