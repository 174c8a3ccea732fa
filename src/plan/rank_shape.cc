#include "plan/rank_shape.h"

#include <algorithm>
#include <cmath>

#include "model/layer_options.h"

namespace hadal::plan {
namespace {

/// Expected number of boxes hit by `draws` different items out of `boxes` boxes of `size` each.
double distinct_boxes(double boxes, double size, double draws) {
  double missed = 1;
  for (double i = 0; i < draws; ++i) missed *= std::max(0.0, boxes * size - size - i) / std::max(1.0, boxes * size - i);
  return boxes * (1 - missed);
}

/// Of `boxes` equal shares of the experts, those that a token's top_k hit: the router draws from topk_groups of num_groups
/// groups.
double shares_of_token(const MoeSection& moe, double boxes) {
  const bool limited = moe.topk_method != TopkMethod::kGreedy && moe.num_groups > 1;
  const double size = static_cast<double>(moe.num_experts) / boxes;
  const auto draws = static_cast<double>(moe.top_k);
  if (!limited) return distinct_boxes(boxes, size, draws);
  const double group = static_cast<double>(moe.num_experts) / static_cast<double>(moe.num_groups);
  if (size <= group) return distinct_boxes(static_cast<double>(moe.topk_groups) * group / size, size, draws);
  // Shares of several groups: which groups are hit comes first, then the shares that hold them.
  const double groups = distinct_boxes(static_cast<double>(moe.topk_groups), group, draws);
  return std::min(boxes, distinct_boxes(boxes, size / group, std::round(groups)));
}

ExpertRows rows_of(const Config& config, const Layout& layout, double tokens, double imbalance) {
  const MoeSection& moe = config.model.moe;
  ExpertRows rows;
  if (moe.num_experts == 0) return rows;
  const auto ep = static_cast<double>(layout.grid.ep()), etp = static_cast<double>(layout.grid.etp()), members = ep * etp;
  rows.expert = tokens * static_cast<double>(moe.top_k) * etp * (members > 1 ? imbalance : 1.0);
  rows.room = rows.expert;
  if (members == 1) return rows;
  rows.items = tokens * static_cast<double>(moe.top_k) * etp;
  const double hit = shares_of_token(moe, ep) * etp;  // members that a token goes to
  const double reached = tokens * hit;
  const auto node = static_cast<double>(config.parallel.ranks_per_node);
  const double nodes = node > 0 ? members / node : 1;
  if (node == 0 || nodes <= 1 || node <= 1) {
    rows.first_sent = reached;
    rows.first_away = reached * (1 - 1 / members);
    return rows;
  }
  rows.first_sent = tokens * std::min(nodes, shares_of_token(moe, std::max(1.0, std::min(nodes, ep))));
  rows.first_away = rows.first_sent * (1 - 1 / nodes);
  rows.second_sent = reached;
  rows.second_away = reached * (1 - 1 / node);
  return rows;
}

/// The same where room travels (parallel/room_dispatch.h): so much of it to each rank, whatever the groups of the router.
void make_room(const Config& config, const Layout& layout, double tokens, ExpertRows& rows) {
  const double capacity = config.parallel.expert_capacity;
  if (capacity == 0 || rows.items == 0) return;
  const MoeSection& moe = config.model.moe;
  const auto ep = static_cast<double>(layout.grid.ep()), members = ep * static_cast<double>(layout.grid.etp());
  const auto experts = static_cast<double>(moe.num_experts), top_k = static_cast<double>(moe.top_k);
  const auto to_one = [&](double shares) { return capacity * tokens * distinct_boxes(shares, experts / shares, top_k) / shares; };
  const bool two_hops = rows.second_sent > 0;
  const double node = two_hops ? static_cast<double>(config.parallel.ranks_per_node) : 1, nodes = members / node;
  rows.first_sent = nodes * std::min(tokens, to_one(std::min(nodes, ep)));
  rows.first_away = rows.first_sent * (1 - 1 / nodes);
  if (two_hops) rows.second_sent = node * std::min(rows.first_sent, nodes * to_one(ep));
  rows.second_away = rows.second_sent * (1 - 1 / node);
  const double slots = std::max(rows.first_sent, rows.second_sent) * std::min(top_k, experts / ep);
  rows.room = std::min(slots, capacity * rows.items);
}

/// Where the machine's nodes begin decides which link a row takes; members of an expert group are neighbours in the stage.
void split_by_link(const Config& config, const Layout& layout, const MachineSection& machine, ExpertRows& rows) {
  const double members = static_cast<double>(layout.grid.ep() * layout.grid.etp());
  if (members == 1) return;
  const double in_node = std::min(members, static_cast<double>(machine.ranks_per_node));
  if (rows.second_sent > 0) {
    const bool crosses = static_cast<double>(config.parallel.ranks_per_node) >= in_node;
    (crosses && in_node < members ? rows.inter_away : rows.intra_away) += rows.first_away;
    rows.intra_away += rows.second_away;
    return;
  }
  const double inside = (in_node - 1) / (members - 1);
  rows.intra_away = rows.first_away * inside;
  rows.inter_away = rows.first_away * (1 - inside);
}

}  // namespace

Formats formats_of(const Config& config, const MachineSection& machine) {
  Formats formats;
  formats.compute = config.precision.compute == ComputeType::kF64 ? DType::kF64 : DType::kF32;
  formats.gradient = formats.compute;
  if (machine.precision == MachinePrecision::kBf16)
    formats = {.compute = DType::kBf16, .gradient = DType::kF32, .moment = DType::kF32, .master = true};
  formats.moment = config.optim.moments == MomentType::kBf16 ? DType::kBf16 : formats.gradient;
  return formats;
}

RankShape::RankShape(const Config& config, const Layout& layout, const ForecastOptions& options, std::int64_t cp_rank)
    : model(config.model), formats(formats_of(config, options.machine)) {
  const parallel::ProcessGrid& grid = layout.grid;
  on_host = options.machine.precision == MachinePrecision::kConfig;
  kernels = on_host ? Kernels::kCpu : Kernels::kCuda;
  threads = options.threads;
  tp = grid.tp();
  cp = grid.cp();
  ep = grid.ep();
  etp = grid.etp();
  whole_seq = config.data.sequence_length;
  batch = config.train.micro_batch;
  seq = whole_seq / cp;
  last_position = whole_seq - cp_rank * (whole_seq / (2 * cp));
  tokens = batch * seq;
  token_rows = tokens / tp;
  vocabulary = (model.vocab_size + tp - 1) / tp;
  const model::ModelOptions model_options = model::model_options(config);
  balance_loss = model.moe.num_experts > 0 && model_options.balance.any();
  experts = rows_of(config, layout, static_cast<double>(token_rows), options.expert_imbalance);
  make_room(config, layout, static_cast<double>(token_rows), experts);
  expert_room = config.parallel.expert_capacity > 0;
  split_by_link(config, layout, options.machine, experts);
}

}  // namespace hadal::plan
