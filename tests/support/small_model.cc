#include "tests/support/small_model.h"

#include "core/rng.h"

namespace hadal::test {
namespace {

model::Prediction make_prediction(std::int64_t batch, std::int64_t seq, std::int64_t depth, const Random& random, std::int64_t vocab) {
  const std::int64_t tokens = batch * seq;
  model::Prediction p{Tensor::empty({tokens}, DType::kI32), Tensor::empty({tokens}, DType::kI32), Tensor::empty({tokens}, DType::kF64)};
  for (std::int64_t t = 0; t < tokens; ++t) {
    const bool valid = t % seq + depth < seq && !(depth == 0 && t == 3);
    p.inputs.as<std::int32_t>()[t] = valid ? static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(1000 * depth + t), static_cast<std::uint64_t>(vocab))) : -1;
    p.targets.as<std::int32_t>()[t] = valid ? static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(5000 + 1000 * depth + t), static_cast<std::uint64_t>(vocab))) : -1;
    p.weights.as<double>()[t] = valid ? 0.1 : 0.0;
  }
  return p;
}

}  // namespace

model::ModelOptions small_model(AttentionKind kind, SparseKind sparse) {
  model::ModelOptions o;
  o.shape.vocab_size = 11;
  o.shape.hidden_size = 8;
  o.shape.num_layers = 2;
  o.shape.intermediate_size = 10;
  o.shape.max_positions = 32;
  o.shape.init_std = 0.3;
  AttentionSection& a = o.shape.attention;
  a.kind = kind;
  a.sparse = sparse;
  a.num_heads = 2;
  a.q_lora_rank = 6;
  a.kv_lora_rank = 6;
  a.qk_nope_head_dim = 3;
  a.qk_rope_head_dim = 4;
  a.v_head_dim = 5;
  a.num_kv_heads = 1;
  a.head_dim = 6;
  a.nsa = {.block_length = 4, .block_stride = 2, .select_block = 4, .num_selected = 3, .window = 4};
  o.shape.moe = {.num_experts = 4, .num_shared = 1, .top_k = 2, .intermediate_size = 5, .first_dense_layers = 1, .num_groups = 2, .topk_groups = 1,
                 .routed_scaling = 1.5};
  o.shape.mtp.depth = 2;
  o.balance.sequence_alpha = 0.05;
  o.dtype = DType::kF64;
  return o;
}

model::MicroBatch make_micro_batch(const model::ModelOptions& o, std::int64_t batch, std::int64_t seq, std::uint64_t seed) {
  const Random random(seed, RandomPurpose::kSynthetic);
  model::MicroBatch m;
  m.batch = batch;
  m.seq = seq;
  m.sequence_scale = 0.5;
  m.mtp_weight = 0.6;
  m.tokens = Tensor::empty({batch * seq}, DType::kI32);
  for (std::int64_t t = 0; t < batch * seq; ++t) {
    m.tokens.as<std::int32_t>()[t] = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(o.shape.vocab_size)));
  }
  m.main = make_prediction(batch, seq, 0, random, o.shape.vocab_size);
  for (std::int64_t k = 1; k <= o.shape.mtp.depth; ++k) m.mtp.push_back(make_prediction(batch, seq, k, random, o.shape.vocab_size));
  return m;
}

}  // namespace hadal::test
