#include "verify/shrink.h"

#include <algorithm>

namespace hadal::verify {
namespace {

constexpr std::int64_t kHidden = 20;
constexpr std::int64_t kVocabulary = 41;  // divides by nothing
constexpr std::int64_t kHeadDim = 4;

void shrink_attention(AttentionSection& a, std::int64_t ranks, std::int64_t layers) {
  a.num_heads = a.kind == AttentionKind::kGqa && a.num_kv_heads < a.num_heads ? 2 * ranks : std::max<std::int64_t>(ranks, 2);
  if (ranks == 1) a.num_heads = 2;
  if (a.q_lora_rank > 0) a.q_lora_rank = 6;
  a.kv_lora_rank = 8;
  a.qk_nope_head_dim = a.v_head_dim = a.qk_rope_head_dim = a.head_dim = kHeadDim;
  a.num_kv_heads = ranks;
  if (a.kind == AttentionKind::kGqa && a.num_heads % a.num_kv_heads != 0) a.num_heads = 2 * a.num_kv_heads;
  std::erase_if(a.dense_layers, [&](std::int64_t layer) { return layer >= layers; });
  // Blocks that straddle chunks of a sequence, a window shorter than it, and of eight selection blocks or more four: one beside the first
  // and the two local ones, so that importance decides.
  a.nsa = {.block_length = 2, .block_stride = 1, .select_block = 2, .num_selected = 4, .window = 5, .tie_up = a.nsa.tie_up,
           .num_select_groups = a.nsa.num_select_groups > 1 ? std::max<std::int64_t>(ranks / 2, 1) : 1};
}

void shrink_experts(MoeSection& moe, std::int64_t ranks) {
  if (moe.num_experts == 0) return;
  moe.num_experts = 2 * std::max<std::int64_t>(ranks, 4);
  moe.num_shared = std::min<std::int64_t>(moe.num_shared, 1);
  moe.intermediate_size = std::max<std::int64_t>(ranks, 4);
  // One normalised weight is always 1: its router has no gradient but rounding, which nothing can be compared to.
  moe.top_k = std::clamp<std::int64_t>(moe.top_k, moe.normalize_topk ? 2 : 1, 3);
  moe.num_groups = moe.num_groups > 1 ? 2 : 1;
  moe.topk_groups = std::min(moe.topk_groups, moe.num_groups);
  if (moe.num_groups == 2) moe.topk_groups = 1;
  moe.first_dense_layers = std::min<std::int64_t>(moe.first_dense_layers, 1);
}

}  // namespace

Config shrink(const Config& config, std::int64_t ranks, std::int64_t stages) {
  Config small = config;
  ModelSection& model = small.model;
  model.mtp.depth = std::min<std::int64_t>(model.mtp.depth, 2);
  const std::int64_t wanted = std::max<std::int64_t>(3, stages - 2 - model.mtp.depth);
  model.num_layers = std::min(std::max<std::int64_t>(config.model.num_layers, wanted), wanted);
  model.vocab_size = std::max<std::int64_t>(kVocabulary, ranks);
  model.hidden_size = kHidden;
  model.intermediate_size = 2 * std::max<std::int64_t>(ranks, 4);
  model.init_std = 0.3;  // loads as uneven as in a run that has learnt something
  shrink_attention(model.attention, ranks, model.num_layers);
  shrink_experts(model.moe, ranks);
  if (model.moe.num_experts > 0 && small.balance.num_devices > 1) small.balance.num_devices = 2;
  if (model.rope.yarn.factor > 1.0) model.rope.yarn.original_length = 16;
  // Of one step: 2 ranks micro-batches of 2 rows where dp is 1; enough for any schedule on as many stages as ranks are left.
  small.train = {};
  small.train.steps = 3;
  small.train.global_batch = 4 * ranks;
  small.train.micro_batch = 2;
  small.data.sequence_length = 4 * std::max<std::int64_t>(ranks, 4);
  model.max_positions = small.data.sequence_length;
  small.data.sources.clear();
  small.data.validation_sources.clear();
  small.data.validation_fraction = 0;
  small.optim.schedule = {};
  small.optim.schedule.kind = LrScheduleKind::kConstant;
  small.precision.compute = ComputeType::kF64;
  small.parallel = {};
  return small;
}

ParallelSection scale_down(const ParallelSection& parallel, const Config& small, std::int64_t ranks) {
  ParallelSection p = parallel;
  p.stages.clear();
  if (small.model.moe.num_experts == 0) p.ep = p.etp = 1;
  const auto halve_largest = [](std::initializer_list<std::int64_t*> degrees) {
    std::int64_t& largest = **std::ranges::max_element(degrees, {}, [](const std::int64_t* degree) { return *degree; });
    largest = largest > 3 ? largest / 2 : largest - 1;
  };
  while (ranks % (p.pp * p.cp * p.tp) != 0) halve_largest({&p.pp, &p.cp, &p.tp});
  const bool by_pairs = p.schedule == ScheduleKind::kDualPipe && p.pp % 2 != 0;
  if (by_pairs) p.schedule = ScheduleKind::kOneFOneB;
  const std::int64_t stage_ranks = ranks / p.pp;
  while (stage_ranks % (p.ep * p.etp) != 0 || small.model.moe.num_experts % p.ep != 0 || small.model.moe.intermediate_size % p.etp != 0) {
    halve_largest({&p.ep, &p.etp});
  }
  if (p.ranks_per_node > 0) p.ranks_per_node = p.ep * p.etp % 2 == 0 ? std::max<std::int64_t>(p.ep * p.etp / 2, 1) : 0;
  if (p.ep * p.etp == 1) p.ranks_per_node = 0, p.expert_capacity = 0;
  // Where the whole layout has ranks of a width that fill nodes or share one, so has the small one.
  if (p.expert_capacity > 0 && p.ranks_per_node > 0 && p.ranks_per_node % p.etp != 0 && p.etp % p.ranks_per_node != 0) p.ranks_per_node = 0;
  return p;
}

}  // namespace hadal::verify
