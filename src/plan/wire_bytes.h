// What a rank sends in one training step, by axis. A collective over n ranks counts the rows that leave the rank: all-gather and
// reduce-scatter of a whole of W bytes (n - 1) / n W each, an all-reduce both.
#pragma once

#include "plan/rank_parameters.h"
#include "plan/rank_shape.h"
#include "schedule/plan.h"

namespace hadal::plan {

/// Of one micro-batch on one layer, or of the sum over more of them.
struct LayerBytes {
  double tp = 0;
  double cp = 0;
  double ep_intra = 0;  ///< inside a node
  double ep_inter = 0;

  LayerBytes& operator+=(const LayerBytes& other);
  LayerBytes times(double factor) const { return {tp * factor, cp * factor, ep_intra * factor, ep_inter * factor}; }
};

/// Forward and, the same amounts but for what only forward sends, backward.
struct LayerTraffic {
  LayerBytes forward, backward;
};

LayerTraffic attention_traffic(const RankShape& shape, bool sparse);
LayerTraffic ffn_traffic(const RankShape& shape, bool moe);
LayerTraffic embedding_traffic(const RankShape& shape);
/// All of it runs forward (Head::loss).
LayerTraffic head_traffic(const RankShape& shape);

struct WireBytes {
  LayerBytes layers;
  double pp = 0;
  double gradients = 0;  ///< dp: reduce-scatter over the replica groups
  double values = 0;     ///< dp: all-gather over them

  double total() const { return layers.tp + layers.cp + layers.ep_intra + layers.ep_inter + pp + gradients + values; }
};

/// Rank at `place` in a step of `plan`.
WireBytes wire_bytes(const Config& config, const Layout& layout, const RankShape& shape, const parallel::Place& place,
                     const schedule::Plan& plan);

}  // namespace hadal::plan
