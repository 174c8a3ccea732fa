// The planned memory of ranks beside what the allocator counted in a real training step.
#pragma once

#include <vector>

#include "config/config.h"
#include "plan/rank_shape.h"

namespace hadal::test {

/// A config of a small dense model in f32.
inline constexpr const char* kSmallModel = R"(
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

/// By rank, on the device that the config names: peak bytes of the second of two steps over synthetic rows, choices of experts forced.
/// On the CPU with one thread a rank; on a device of one rank alone, without what stays there afterwards.
std::vector<double> measured_peaks(const Config& config, int ranks);
/// By rank. `scratch`: with what kernels take while they run.
std::vector<double> planned_peaks(const Config& config, int ranks, const MachineSection& machine, bool scratch = true);

}  // namespace hadal::test
