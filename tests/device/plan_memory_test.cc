// Guards: what `hadal plan` expects the tensors of a bf16 step to take, without the scratch memory of kernels (the fake device's take
// none), is what the allocator counts.
#include <gtest/gtest.h>

#include "config/load.h"
#include "tests/support/plan_memory.h"

namespace hadal {
namespace {

MachineSection device() {
  MachineSection machine;
  machine.precision = MachinePrecision::kBf16;
  return machine;
}

void compare(std::vector<std::string> overrides) {
  SCOPED_TRACE(testing::PrintToString(overrides));
  overrides.insert(overrides.end(), {"run.device=cuda", "precision.compute=bf16"});
  const Config config = load_config_text(test::kSmallModel, "base.yaml", overrides).config;
  const double plan = test::planned_peaks(config, 1, device(), false)[0], real = test::measured_peaks(config, 1)[0];
  fmt::print("{:+6.2f} %: {}\n", 100 * (plan / real - 1), testing::PrintToString(overrides));
  EXPECT_NEAR(plan / real, 1.0, 0.01) << plan << " planned, " << real << " measured";
}

TEST(PlanMemoryOnDevice, OfTheTensorsOfABf16Step) {
  const std::string moe = "model.moe={num_experts: 8, num_shared: 1, top_k: 2, intermediate_size: 64, first_dense_layers: 1}";
  const std::string nsa = "model.attention.nsa={block_length: 16, block_stride: 8, select_block: 16, num_selected: 3, window: 32}";
  const std::string gqa = "model.attention={kind: gqa, num_heads: 4, num_kv_heads: 2, head_dim: 32, v_head_dim: 32}";
  compare({});
  compare({moe, "model.mtp.depth=1"});
  compare({nsa, "model.attention.sparse=nsa", moe});
  compare({gqa});
  compare({gqa, nsa, "model.attention.sparse=nsa"});
}

}  // namespace
}  // namespace hadal
