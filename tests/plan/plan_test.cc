// Parameters of the ranks add up to the model's; bytes on the wire equal formulas written by hand; the search finds what trying
// everything finds; the published run of DeepSeek-V3.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/load_machine.h"
#include "core/error.h"
#include "model/parameter_count.h"
#include "plan/forecast.h"
#include "plan/machines.h"
#include "plan/print.h"
#include "plan/search.h"

namespace hadal::plan {
namespace {

constexpr const char* kConfigs = HADAL_SOURCE_DIR "/configs";

Config preset(const std::string& name, std::vector<std::string> overrides) {
  overrides.push_back("data.sequence_length=2048");
  overrides.push_back("train={global_batch: 256, micro_batch: 1}");
  overrides.push_back("model.max_positions=4096");
  return load_config(std::string(kConfigs) + "/model/" + name + ".yaml", overrides).config;
}

/// By kind, each element counted once whoever holds copies of it.
std::array<double, kNumParameterKinds> summed(const Config& config, int num_ranks) {
  const Layout layout = make_layout(config, num_ranks);
  std::array<double, kNumParameterKinds> sums{};
  for (int rank = 0; rank < num_ranks; ++rank) {
    for (const ParameterSize& p : rank_parameters(config, layout, layout.grid.place(rank))) {
      sums[static_cast<std::size_t>(p.kind)] += static_cast<double>(p.numel) / static_cast<double>(replicas(p, layout.grid));
    }
  }
  return sums;
}

TEST(PlanParameters, AddUpOverTheRanks) {
  const std::vector<std::string> layouts{"{}",
                                         "{tp: 2}",
                                         "{pp: 2, schedule: dualpipe}",
                                         "{pp: 4, schedule: interleaved}",
                                         "{cp: 2, ep: 4}",
                                         "{pp: 2, tp: 2, ep: 2, etp: 2, schedule: dualpipe_v}",
                                         "{pp: 2, tp: 4, cp: 2, ep: 8}"};
  int compared = 0;
  for (const char* name : {"tiny", "small", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3", "nsa_27b"}) {
    for (const std::string& text : layouts) {
      const Config config = preset(name, {"parallel=" + text});
      SCOPED_TRACE(std::string(name) + " " + text);
      std::array<double, kNumParameterKinds> sums{};
      try {
        sums = summed(config, 32);
      } catch (const UserError&) {
        continue;  // the smaller presets have too few layers or experts for some
      }
      ++compared;
      const model::ParameterCount count = model::count_parameters(config.model);
      const std::array<std::int64_t, 10> wanted{
          count.embedding,      count.head,           count.attention, count.nsa,   count.dense_ffn,
          count.routed_experts, count.shared_experts, count.router,    count.norms, count.mtp};
      for (std::size_t kind = 0; kind < wanted.size(); ++kind) {
        EXPECT_NEAR(sums[kind], static_cast<double>(wanted[kind]), 1e-9 * static_cast<double>(wanted[kind]))
            << name_of(static_cast<ParameterKind>(kind));
      }
    }
  }
  EXPECT_GE(compared, 25);
}

Config small(const std::vector<std::string>& more) {
  std::vector<std::string> overrides{
      "model={vocab_size: 100, hidden_size: 32, num_layers: 4, intermediate_size: 64}",
      "model.attention={kind: mla, num_heads: 4, q_lora_rank: 16, kv_lora_rank: 16, qk_nope_head_dim: 8, qk_rope_head_dim: 8, "
      "v_head_dim: 8}",
      "data.sequence_length=64", "train={global_batch: 16, micro_batch: 2}"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return load_config_text("", "small.yaml", overrides).config;
}

ForecastOptions on(const char* machine) { return {.machine = find_machine(machine), .expert_imbalance = 1.0, .threads = 1}; }

TEST(PlanWire, TensorParallelByHand) {
  // 8 micro-batches; [T', d] of 64 rows x 32 channels in f32. A layer has two regions, each one gather and one scatter forward
  // and back; the embedding scatters forward and gathers back; the head gathers and scatters once and gathers 4 statistics of
  // each of 128 rows.
  const Forecast f = forecast(small({"parallel.tp=2"}), 2, on("cpu"));
  const double rows = 64 * 32 * 4;
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.layers.tp, 8 * (4 * 8 * rows + 2 * rows + 2 * rows + 128 * 4 * 4));
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.layers.cp, 0);
}

TEST(PlanWire, ContextParallelByHand) {
  // Latents of 16 + 8 channels: own 2 x 32 tokens to one other rank, and their gradients back.
  const Forecast f = forecast(small({"parallel.cp=2"}), 2, on("cpu"));
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.layers.cp, 8 * 4 * 2 * (2 * 32 * 24 * 4.0));
}

TEST(PlanWire, PipelineByHand) {
  // 1F1B: rank 0 sends 8 activations, rank 1 sends 8 gradients, the ones in between both.
  const Forecast f = forecast(small({"parallel.pp=4"}), 4, on("cpu"));
  const double boundary = 2 * 64 * 32 * 4;
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.pp, 8 * boundary);
  EXPECT_DOUBLE_EQ(f.ranks[1].wire.pp, 16 * boundary);
  EXPECT_DOUBLE_EQ(f.ranks[3].wire.pp, 8 * boundary);
}

TEST(PlanWire, DataParallelByHand) {
  const Config config = small({});
  const Forecast f = forecast(config, 4, on("cpu"));
  const double bytes = 4.0 * static_cast<double>(model::count_parameters(config.model).total_with_mtp);
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.gradients, 0.75 * bytes);
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.values, 0.75 * bytes);
}

TEST(PlanWire, ExpertParallelByHand) {
  // 4 experts on 4 ranks, top 1: of 128 rows three quarters leave, there and back, forward and backward; forward 24 bytes say for
  // which expert, backward the weight's gradient comes home.
  const Config config = small(
      {"model.moe={num_experts: 4, num_shared: 0, top_k: 1, intermediate_size: 16, first_dense_layers: 3, topk_method: greedy}",
       "parallel.ep=4"});
  const Forecast f = forecast(config, 4, on("cpu"));
  const double micro_batches = 2, away = 128 * 0.75;
  EXPECT_NEAR(f.ranks[0].wire.layers.ep_intra, micro_batches * away * (4 * 32 * 4 + 24 + 4), 1e-6);
  EXPECT_DOUBLE_EQ(f.ranks[0].wire.layers.ep_inter, 0);
}

TEST(PlanSearch, FindsWhatTryingEverythingFinds) {
  ForecastOptions options = on("cpu");
  const Config config = small(
      {"model.moe={num_experts: 8, num_shared: 1, top_k: 2, intermediate_size: 32, first_dense_layers: 1}", "model.mtp.depth=1"});
  for (const double memory : {1.0, 0.0012}) {
    options.machine.memory_gib = memory;
    std::vector<double> steps;
    for (const Try& one : layouts_to_try(config, 8, options.machine)) {
      try {
        const Forecast f = forecast(one.applied_to(config), 8, options);
        if (static_cast<double>(peak_bytes(f.ranks)) <= usable_bytes(options.machine)) steps.push_back(f.time.total());
      } catch (const UserError&) {
      }
    }
    std::ranges::sort(steps);
    ASSERT_GE(steps.size(), 5U) << memory;
    const std::vector<Candidate> found = search(config, 8, options, 5);
    ASSERT_EQ(found.size(), 5U);
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_DOUBLE_EQ(found[i].step_s, steps[i]) << i;
      EXPECT_LE(static_cast<double>(found[i].peak_bytes), usable_bytes(options.machine));
    }
  }
  options.machine.memory_gib = 1e-5;
  EXPECT_TRUE(search(config, 8, options, 5).empty());
}

TEST(PlanMachines, EveryFileLoadsAndIsKnownByName) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(kConfigs) + "/machine")) {
    ++files;
    EXPECT_EQ(find_machine(entry.path().string()).name, find_machine(entry.path().stem().string()).name);
  }
  EXPECT_GE(files, 4);
}

std::string refusal(const std::string& text) {
  try {
    load_machine_text(text, "machine.yaml");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(PlanMachines, MistakesAreNamedWithTheirPlace) {
  const std::string good = "name: x\nmemory_gib: 8\nmemory_bandwidth: 1e10\npeak: {f32: 1e11}\nlink: {intra: 1e9, inter: 1e9}\n";
  EXPECT_EQ(refusal(good), "");
  const auto names = [](const std::string& text, const std::string& words) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
  };
  names(refusal(good + "memory_gb: 9\n"), "machine.yaml:6:1: memory_gb: unknown key (did you mean memory_gib?)");
  names(refusal(good + "efficiency: {gemm: 1.5}\n"), "machine.yaml:6:20: efficiency.gemm");
  names(refusal("name: x\n"), "memory_gib is missing");
  names(refusal(good + "precision: bf16\n"), "peak.bf16 is missing");
  names(refusal(good + "reserve_gib: 8\n"), "machine.yaml:6:14: reserve_gib 8 must be below memory_gib 8");
  EXPECT_THROW(find_machine("h80"), UserError);
}

/// The runs for one GPU fit it.
TEST(Plan, RunsOfOneGpuFit) {
  for (const char* name : {"/run/h100_small.yaml", "/bench/v2_lite_slice.yaml"}) {
    SCOPED_TRACE(name);
    const Config config = load_config(std::string(kConfigs) + name).config;
    EXPECT_EQ(config.run.device, DeviceChoice::kCuda);
    EXPECT_EQ(config.precision.compute, ComputeType::kBf16);
    const MachineSection machine = find_machine("h100");
    const Forecast f = forecast(config, 1, {.machine = machine});
    ASSERT_EQ(f.ranks.size(), 1U);
    EXPECT_LT(static_cast<double>(f.ranks[0].memory.peak), (machine.memory_gib - machine.reserve_gib) * double{1 << 30});
    EXPECT_GT(f.tokens_per_s_per_rank, 0);
  }
}

TEST(PlanPublished, DeepSeekV3OnItsMachine) {
  const Config config = load_config(std::string(kConfigs) + "/run/deepseek_v3_2048.yaml").config;
  const ForecastOptions options{.machine = find_machine("h800")};
  const Forecast f = forecast(config, 2048, options);
  EXPECT_EQ(f.ranks.size(), 16U);
  EXPECT_EQ(f.micro_batches, 120);
  for (const RankForecast& rank : f.ranks) EXPECT_EQ(rank.memory.micro_batches_in_flight, 17);
  const std::string text = describe(config, f, options, {});
  EXPECT_NE(text.find("published: 180K"), std::string::npos);
  EXPECT_NE(text.find("Assumptions"), std::string::npos);
  // Not a claim about the machine: a bound on how far the model of time may drift unnoticed.
  EXPECT_GT(f.rank_hours_per_trillion_tokens, 140e3);
  EXPECT_LT(f.rank_hours_per_trillion_tokens, 230e3);
}

}  // namespace
}  // namespace hadal::plan
