#include "plan/rank_parameters.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "model/layer_options.h"
#include "parallel/vocabulary.h"

namespace hadal::plan {
namespace {

using nn::Replication;
using Kind = ParameterKind;

class List {
 public:
  List(const Config& config, const Layout& layout, const parallel::Place& place)
      : model_(config.model), layout_(layout), tp_{place.tp_rank, layout.grid.tp()} {}

  void add_stages(const model::StagePlacement& placement) {
    std::vector<std::int64_t> stages = placement.slots;
    std::ranges::sort(stages);
    bool embedding = false, head = false;
    const auto any_of = [&](auto needs) {
      std::vector<std::int64_t> ranks;
      for (std::size_t s = 0; s < layout_.stages.size(); ++s) {
        if (needs(layout_.stages[s])) ranks.insert(ranks.end(), placement.pp_ranks[s].begin(), placement.pp_ranks[s].end());
      }
      std::ranges::sort(ranks);
      ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
      return ranks;
    };
    const auto embedding_holders = any_of([](const model::StageContent& stage) { return stage.needs_embedding(); });
    const auto head_holders = any_of([](const model::StageContent& stage) { return stage.needs_head(); });
    for (const std::int64_t s : stages) {
      const model::StageContent& stage = layout_.stages[static_cast<std::size_t>(s)];
      holders_ = placement.pp_ranks[static_cast<std::size_t>(s)];
      if (stage.needs_embedding() && !std::exchange(embedding, true)) table(Kind::kEmbedding, embedding_holders);
      for (std::int64_t i = 0; i < stage.num_layers; ++i) block(stage.first_layer + i);
      if (stage.head) add(Kind::kNorms, d());
      if (stage.needs_head() && !std::exchange(head, true)) table(Kind::kHead, head_holders);
      for (std::int64_t k = 0; k < stage.num_mtp; ++k) mtp_module(model_.num_layers + stage.first_mtp + k);
    }
  }

  std::vector<ParameterSize> take() { return std::move(list_); }

 private:
  std::int64_t d() const { return model_.hidden_size; }

  void add(Kind kind, std::int64_t numel, Replication replication = Replication::kDense) {
    list_.push_back({kind == Kind::kBuffer || !mtp_ ? kind : Kind::kMtp, replication, numel, holders_});
  }
  /// A matrix of which a rank holds the share of its heads.
  void by_heads(Kind kind, std::int64_t numel) { add(kind, numel / tp_.count, Replication::kTensor); }
  void table(Kind kind, const std::vector<std::int64_t>& holders) {
    const parallel::VocabularyRange range = parallel::vocabulary_range(model_.vocab_size, tp_);
    list_.push_back({kind, tp_.whole() ? Replication::kDense : Replication::kTensor, (range.end - range.begin) * d(), holders});
  }

  void block(std::int64_t layer) {
    add(Kind::kNorms, d());
    const AttentionSection& a = model_.attention;
    const bool sparse = a.sparse == SparseKind::kNsa && std::ranges::find(a.dense_layers, layer) == a.dense_layers.end();
    a.kind == AttentionKind::kMla ? mla(sparse) : gqa(sparse);
    add(Kind::kNorms, d());
    model::is_moe_layer(model_, layer) ? moe() : feed_forward(Kind::kDenseFfn, model_.intermediate_size);
  }

  void mla(bool sparse) {
    const AttentionSection& a = model_.attention;
    const std::int64_t qk = a.qk_nope_head_dim + a.qk_rope_head_dim, rank = a.kv_lora_rank;
    const std::int64_t up = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim) * rank;
    if (a.q_lora_rank > 0) {
      add(Kind::kAttention, a.q_lora_rank * d());
      add(Kind::kNorms, a.q_lora_rank);
    }
    by_heads(Kind::kAttention, a.num_heads * qk * (a.q_lora_rank > 0 ? a.q_lora_rank : d()));
    add(Kind::kAttention, (rank + a.qk_rope_head_dim) * d());
    add(Kind::kNorms, rank);
    by_heads(Kind::kAttention, up);
    if (sparse) {
      if (!a.nsa.tie_up) {
        by_heads(Kind::kNsa, up);
        by_heads(Kind::kNsa, up);
      }
      for (const std::int64_t width : {rank, a.qk_rope_head_dim}) {
        add(Kind::kNsa, width * rank);
        add(Kind::kNsa, a.nsa.block_length * width);
      }
      add(Kind::kNorms, rank);
      gate();
    }
    by_heads(Kind::kAttention, d() * a.num_heads * a.v_head_dim);
  }

  void gqa(bool sparse) {
    const AttentionSection& a = model_.attention;
    by_heads(Kind::kAttention, a.num_heads * a.head_dim * d());
    for (int branch = 0; branch < (sparse ? 3 : 1); ++branch) {
      const Kind kind = branch == 0 ? Kind::kAttention : Kind::kNsa;
      by_heads(kind, a.num_kv_heads * a.head_dim * d());
      by_heads(kind, a.num_kv_heads * a.v_head_dim * d());
    }
    if (sparse) {
      for (const std::int64_t width : {a.head_dim, a.v_head_dim}) {
        add(Kind::kNsa, width * width);
        add(Kind::kNsa, a.nsa.block_length * width);
      }
      gate();
    }
    by_heads(Kind::kAttention, d() * a.num_heads * a.v_head_dim);
  }

  void gate() {
    by_heads(Kind::kNsa, 3 * model_.attention.num_heads * d());
    by_heads(Kind::kNsa, 3 * model_.attention.num_heads);
  }

  void feed_forward(Kind kind, std::int64_t width) {
    const Replication replication = tp_.whole() ? Replication::kDense : Replication::kTensor;
    add(kind, 2 * width / tp_.count * d(), replication);
    add(kind, width / tp_.count * d(), replication);
  }

  void moe() {
    const MoeSection& moe = model_.moe;
    add(Kind::kRouter, moe.num_experts * d());
    if (moe.topk_method == TopkMethod::kNoauxTc) add(Kind::kBuffer, moe.num_experts);
    const std::int64_t matrix = moe.num_experts / layout_.grid.ep() * (moe.intermediate_size / layout_.grid.etp()) * d();
    add(Kind::kRoutedExperts, 2 * matrix, Replication::kExpert);
    add(Kind::kRoutedExperts, matrix, Replication::kExpert);
    if (moe.num_shared > 0) feed_forward(Kind::kSharedExperts, moe.num_shared * moe.intermediate_size);
  }

  void mtp_module(std::int64_t layer) {
    mtp_ = true;
    add(Kind::kNorms, d());
    add(Kind::kNorms, d());
    add(Kind::kMtp, 2 * d() * d());
    block(layer);
    add(Kind::kNorms, d());
    mtp_ = false;
  }

  const ModelSection& model_;
  const Layout& layout_;
  nn::Shard tp_;
  std::vector<std::int64_t> holders_;  // of the stage at hand
  bool mtp_ = false;
  std::vector<ParameterSize> list_;
};

}  // namespace

std::string_view name_of(ParameterKind kind) {
  constexpr std::string_view kNames[kNumParameterKinds] = {"embedding",      "head",           "attention", "nsa",   "dense FFN",
                                                           "routed experts", "shared experts", "router",    "norms", "mtp",
                                                           "balancing bias"};
  return kNames[static_cast<int>(kind)];
}

std::vector<ParameterSize> rank_parameters(const Config& config, const Layout& layout, const parallel::Place& place) {
  List list(config, layout, place);
  list.add_stages(layout.stage_placement(place.pp_rank));
  return list.take();
}

std::int64_t replicas(const ParameterSize& parameter, const parallel::ProcessGrid& grid) {
  const auto holders = static_cast<std::int64_t>(parameter.holders.size());
  switch (parameter.replication) {
    case Replication::kDense:
      return holders * grid.stage_ranks();
    case Replication::kTensor:
      return holders * grid.dp() * grid.cp();
    case Replication::kExpert:
      return holders * grid.edp();
  }
  return holders;
}

}  // namespace hadal::plan
