#include "plan/wire_bytes.h"

#include <algorithm>

#include "kernels/nsa.h"
#include "kernels/vocab_cross_entropy.h"
#include "model/layer_options.h"

namespace hadal::plan {
namespace {

double bytes_of(const RankShape& shape) { return static_cast<double>(size_of(shape.formats.compute)); }

/// All-gather or reduce-scatter of [T, w] over tp.
double over_tp(const RankShape& shape, double width) {
  return static_cast<double>((shape.tp - 1) * shape.token_rows) * width * bytes_of(shape);
}

/// All-gather or reduce-scatter over cp of rows of which `own` lie here.
double over_cp(const RankShape& shape, double own, double width) {
  return static_cast<double>(shape.cp - 1) * own * width * bytes_of(shape);
}

LayerTraffic both_ways(const LayerBytes& bytes) { return {bytes, bytes}; }

}  // namespace

LayerBytes& LayerBytes::operator+=(const LayerBytes& other) {
  tp += other.tp;
  cp += other.cp;
  ep_intra += other.ep_intra;
  ep_inter += other.ep_inter;
  return *this;
}

LayerTraffic attention_traffic(const RankShape& shape, bool sparse) {
  const AttentionSection& a = shape.model.attention;
  LayerTraffic traffic = both_ways({.tp = 2 * over_tp(shape, static_cast<double>(shape.model.hidden_size))});
  if (shape.cp > 1) {
    const bool mla = a.kind == AttentionKind::kMla;
    const double groups = static_cast<double>(a.num_kv_heads / shape.tp);
    const double width =
        mla ? static_cast<double>(a.kv_lora_rank + a.qk_rope_head_dim) : groups * static_cast<double>(a.head_dim + a.v_head_dim);
    const double entries =
        static_cast<double>(shape.batch * kernels::num_compressed(shape.whole_seq, a.nsa.block_length, a.nsa.block_stride)) /
        static_cast<double>(shape.cp);
    const double tokens = static_cast<double>(shape.tokens) * (sparse && !mla ? 3 : 1);
    const double moved = over_cp(shape, tokens, width) + (sparse ? over_cp(shape, entries, width) : 0);
    traffic.forward.cp = traffic.backward.cp = moved;
  }
  const std::int64_t groups = a.nsa.num_select_groups;
  if (sparse && a.kind == AttentionKind::kMla && shape.tp > groups) {
    const double ranks = static_cast<double>(shape.tp / groups);
    const double importance = static_cast<double>(shape.tokens * ((shape.whole_seq - 1) / a.nsa.select_block + 1));
    traffic.forward.tp += 2 * (ranks - 1) / ranks * importance * bytes_of(shape);
  }
  return traffic;
}

LayerTraffic ffn_traffic(const RankShape& shape, bool moe) {
  const auto d = static_cast<double>(shape.model.hidden_size);
  if (!moe) return both_ways({.tp = 2 * over_tp(shape, d)});
  LayerTraffic traffic = both_ways({.tp = shape.model.moe.num_shared > 0 ? 2 * over_tp(shape, d) : 0});
  const ExpertRows& rows = shape.experts;
  if (rows.items == 0) return traffic;
  // Dispatch and combine, rows of d; forward the items say which experts, backward each brings its weight's gradient home.
  // With room, slots for as many as can be meant, of an I32 and the weight.
  const auto slots = static_cast<double>(std::min(shape.model.moe.top_k, shape.model.moe.num_experts / shape.ep));
  const double item_bytes = shape.expert_room ? 8 : 24;
  const double items = shape.expert_room ? slots : rows.items / std::max(rows.first_sent, 1.0);
  traffic.forward.ep_intra = rows.intra_away * (2 * d * bytes_of(shape) + items * item_bytes);
  traffic.forward.ep_inter = rows.inter_away * (2 * d * bytes_of(shape) + items * item_bytes);
  traffic.backward.ep_intra = rows.intra_away * (2 * d + items) * bytes_of(shape);
  traffic.backward.ep_inter = rows.inter_away * (2 * d + items) * bytes_of(shape);
  return traffic;
}

LayerTraffic embedding_traffic(const RankShape& shape) {
  return both_ways({.tp = over_tp(shape, static_cast<double>(shape.model.hidden_size))});
}

LayerTraffic head_traffic(const RankShape& shape) {
  const double statistics = static_cast<double>((shape.tp - 1) * shape.tokens * kernels::kNumVocabStatistics) * bytes_of(shape);
  return {{.tp = 2 * over_tp(shape, static_cast<double>(shape.model.hidden_size)) + statistics}, {}};
}

WireBytes wire_bytes(const Config& config, const Layout& layout, const RankShape& shape, const parallel::Place& place,
                     const schedule::Plan& plan) {
  WireBytes bytes;
  const AttentionSection& a = shape.model.attention;
  const auto add = [&](const LayerTraffic& traffic, double micro_batches) {
    bytes.layers += traffic.forward.times(micro_batches);
    bytes.layers += traffic.backward.times(micro_batches);
  };
  const auto block = [&](std::int64_t layer, double micro_batches) {
    const bool sparse = a.sparse == SparseKind::kNsa && std::ranges::find(a.dense_layers, layer) == a.dense_layers.end();
    add(attention_traffic(shape, sparse), micro_batches);
    add(ffn_traffic(shape, model::is_moe_layer(shape.model, layer)), micro_batches);
  };
  const model::StagePlacement placement = layout.stage_placement(place.pp_rank);
  for (std::size_t slot = 0; slot < placement.slots.size(); ++slot) {
    const model::StageContent& stage = layout.stages[static_cast<std::size_t>(placement.slots[slot])];
    const auto s = static_cast<int>(slot);
    const double count = plan.placement.end_micro_batch(s) - plan.placement.first_micro_batch(s);
    if (stage.embedding) add(embedding_traffic(shape), count);
    for (std::int64_t i = 0; i < stage.num_layers; ++i) block(stage.first_layer + i, count);
    if (stage.head) add(head_traffic(shape), count);
    for (std::int64_t k = 0; k < stage.num_mtp; ++k) {
      add(embedding_traffic(shape), count);
      block(shape.model.num_layers + stage.first_mtp + k, count);
      add(head_traffic(shape), count);
    }
  }
  for (const schedule::Action& action : plan.ranks[static_cast<std::size_t>(place.pp_rank)]) {
    if (action.op == schedule::Op::kSend)
      bytes.pp += static_cast<double>(shape.token_rows * shape.model.hidden_size) * bytes_of(shape);
  }
  for (const ParameterSize& parameter : rank_parameters(config, layout, place)) {
    if (!parameter.trainable()) continue;
    const auto ranks = static_cast<double>(replicas(parameter, layout.grid));
    const double moved = (ranks - 1) / ranks * static_cast<double>(parameter.numel);
    bytes.gradients += moved * static_cast<double>(size_of(shape.formats.gradient));
    bytes.values += moved * static_cast<double>(size_of(shape.formats.compute));
  }
  return bytes;
}

}  // namespace hadal::plan
