// Guards: what `hadal plan` expects of a step on a device, the kernels' scratch memory included, is what the allocator counts there: for
// models whose peak lies in each of the larger kinds of scratch.
#include <gtest/gtest.h>

#include "config/load.h"
#include "kernels/cuda_scratch.h"
#include "tests/support/plan_memory.h"

namespace hadal::test {
namespace {

constexpr const char* kBase = R"(
run: {device: cuda}
model:
  vocab_size: 2000
  hidden_size: 128
  num_layers: 2
  intermediate_size: 256
  max_positions: 4096
  attention: {kind: mla, num_heads: 16, q_lora_rank: 64, kv_lora_rank: 64, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128}
data: {sequence_length: 4096}
train: {global_batch: 2, micro_batch: 1}
precision: {compute: bf16}
)";

void compare(const char* peak, const std::vector<std::string>& overrides) {
  SCOPED_TRACE(peak);
  const Config config = load_config_text(kBase, "base.yaml", overrides).config;
  MachineSection machine;
  machine.precision = MachinePrecision::kBf16;
  const double workspace = static_cast<double>(kernels::kGemmWorkspaceBytes);  // stays, from the first product of the program on
  const double plan = planned_peaks(config, 1, machine)[0] - workspace, bare = planned_peaks(config, 1, machine, false)[0];
  const double real = measured_peaks(config, 1)[0];
  fmt::print("{:+6.2f} %, {:.0f} MB, of which scratch {:.0f} MB: {}\n", 100 * (plan / real - 1), real / 1e6, (plan - bare) / 1e6, peak);
  EXPECT_NEAR(plan / real, 1.0, 0.01) << plan << " planned, " << real << " measured";
  EXPECT_GT(plan - bare, 0.04 * real);  // four times what is allowed
}

TEST(PlanMemoryOnCuda, WithTheScratchOfKernels) {
  const std::string nsa = "model.attention.nsa={block_length: 32, block_stride: 16, select_block: 64, num_selected: 16, window: 512}";
  const std::string sparse = "model.attention.sparse=nsa";
  const auto gqa = [](const char* sizes) { return std::string("model.attention={kind: gqa, head_dim: 128, v_head_dim: 128, ") + sizes + "}"; };
  compare("statistics and shared keys of dense attention", {});
  compare("partial results of heads that have their own keys", {nsa, sparse});
  compare("d_s of many heads of a key head", {gqa("num_heads: 32, num_kv_heads: 2"), nsa, sparse});
  compare("partial results of few heads of a key head", {gqa("num_heads: 8, num_kv_heads: 2"), nsa, sparse});
  compare("logits", {gqa("num_heads: 4, num_kv_heads: 2"), "model.vocab_size=60000", "model.hidden_size=64"});
}

}  // namespace
}  // namespace hadal::test
