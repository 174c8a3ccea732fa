// The count made from the config equals the parameters of the model that is built from it, kind by kind where names tell.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "config/load.h"
#include "model/model.h"
#include "model/parameter_count.h"

namespace hadal::model {
namespace {

struct Sum {
  std::int64_t all = 0;
  std::int64_t routed = 0;
};

Sum sum_of(const ModelSection& shape) {
  ModelOptions options;
  options.shape = shape;
  Model model(options);
  Sum sum;
  for (const nn::Parameter* parameter : model.parameters()) {
    if (!parameter->options().trainable) continue;
    sum.all += parameter->numel();
    if (parameter->options().replication == nn::Replication::kExpert) sum.routed += parameter->numel();
  }
  return sum;
}

void expect_equal_counts(const ModelSection& shape) {
  const ParameterCount count = count_parameters(shape);
  const Sum sum = sum_of(shape);
  EXPECT_EQ(sum.all, count.total_with_mtp);
  const std::int64_t expert = 3 * shape.hidden_size * shape.moe.intermediate_size;
  EXPECT_EQ(sum.routed, count.routed_experts + shape.mtp.depth * shape.moe.num_experts * expert);
}

TEST(ParameterCountOfModels, EqualsTheBuiltModel) {
  const ModelSection tiny = load_config(HADAL_SOURCE_DIR "/configs/model/tiny.yaml").config.model;
  expect_equal_counts(tiny);
  expect_equal_counts(load_config(HADAL_SOURCE_DIR "/configs/bench/cpu_small.yaml").config.model);

  ModelSection changed = tiny;
  changed.attention.nsa.tie_up = true;
  changed.attention.dense_layers = {0, 2};
  changed.attention.q_lora_rank = 24;
  changed.mtp.depth = 2;
  expect_equal_counts(changed);

  changed = tiny;
  changed.attention.kind = AttentionKind::kGqa;
  changed.attention.num_kv_heads = 2;
  changed.attention.head_dim = 24;
  changed.attention.v_head_dim = 20;
  expect_equal_counts(changed);
  changed.attention.sparse = SparseKind::kNone;
  changed.moe.num_shared = 2;
  changed.moe.first_dense_layers = 3;
  expect_equal_counts(changed);
  changed.moe.num_experts = 0;
  expect_equal_counts(changed);
}

}  // namespace
}  // namespace hadal::model
