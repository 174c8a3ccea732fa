#include "plan/layout.h"

#include <algorithm>

#include "core/error.h"

namespace hadal::plan {
namespace {

/// Collects sentences, so that one run of the program tells them all.
class Problems {
 public:
  template <class... Args>
  void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) text_ += (text_.empty() ? "" : "\n") + fmt::format(format, std::forward<Args>(args)...);
  }
  void raise() const {
    if (!text_.empty()) throw UserError("{}", text_);
  }

 private:
  std::string text_;
};

void check_tensor(const Config& config, const parallel::ProcessGrid& grid, Problems& problems) {
  const ModelSection& model = config.model;
  const AttentionSection& a = model.attention;
  const std::int64_t tp = grid.tp();
  if (tp == 1) return;
  const auto divides = [&](const char* key, std::int64_t value) {
    problems.require(value % tp == 0, "parallel.tp {} must divide {} {}", tp, key, value);
  };
  divides("model.attention.num_heads", a.num_heads);
  if (a.kind == AttentionKind::kGqa) divides("model.attention.num_kv_heads", a.num_kv_heads);
  if (a.kind == AttentionKind::kMla && a.sparse == SparseKind::kNsa) {
    const std::int64_t groups = a.nsa.num_select_groups;
    problems.require(groups % tp == 0 || tp % groups == 0,
                     "of parallel.tp {} and model.attention.nsa.num_select_groups {} one must divide the other: a rank holds whole groups, or an "
                     "equal share of one",
                     tp, groups);
  }
  const bool dense = model.moe.num_experts == 0 || model.moe.first_dense_layers > 0;
  if (dense) divides("model.intermediate_size", model.intermediate_size);
  if (model.moe.num_experts > 0 && model.moe.num_shared > 0) {
    const std::int64_t width = model.moe.num_shared * model.moe.intermediate_size;
    problems.require(width % tp == 0, "parallel.tp {} must divide model.moe.num_shared {} x intermediate_size {} = {}", tp, model.moe.num_shared,
                     model.moe.intermediate_size, width);
  }
  problems.require(model.vocab_size >= tp, "parallel.tp {} is more than model.vocab_size {}", tp, model.vocab_size);
  const std::int64_t rows = config.train.micro_batch * config.data.sequence_length / grid.cp();
  problems.require(rows % tp == 0, "parallel.tp {} must divide the tokens of a micro-batch: train.micro_batch {} x data.sequence_length {} / cp {} = {}", tp,
                   config.train.micro_batch, config.data.sequence_length, grid.cp(), rows);
}

void check_sequence(const Config& config, const parallel::ProcessGrid& grid, Problems& problems) {
  const std::int64_t seq = config.data.sequence_length, cp = grid.cp();
  problems.require(cp == 1 || seq % (2 * cp) == 0,
                   "data.sequence_length {} must be a multiple of 2 x parallel.cp {} = {}: each rank holds two chunks of a sequence", seq, cp, 2 * cp);
}

void check_experts(const Config& config, const parallel::ProcessGrid& grid, Problems& problems) {
  const MoeSection& moe = config.model.moe;
  if (grid.ep() * grid.etp() == 1) {
    problems.require(config.parallel.ranks_per_node == 0, "parallel.ranks_per_node {} is for tokens that travel to experts; ep and etp are 1",
                     config.parallel.ranks_per_node);
    problems.require(config.parallel.expert_capacity == 0, "parallel.expert_capacity {} is for tokens that travel to experts; ep and etp are 1",
                     config.parallel.expert_capacity);
    return;
  }
  problems.require(moe.num_experts > 0, "parallel.ep {} and etp {} need experts; model.moe.num_experts is 0", grid.ep(), grid.etp());
  problems.require(moe.num_experts % grid.ep() == 0, "parallel.ep {} must divide model.moe.num_experts {}", grid.ep(), moe.num_experts);
  problems.require(moe.intermediate_size % grid.etp() == 0, "parallel.etp {} must divide model.moe.intermediate_size {}", grid.etp(), moe.intermediate_size);
  const std::int64_t node = config.parallel.ranks_per_node, ranks = grid.ep() * grid.etp();
  problems.require(node == 0 || ranks % node == 0, "parallel.ranks_per_node {} must divide ep {} x etp {} = {}", node, grid.ep(), grid.etp(), ranks);
  const double capacity = config.parallel.expert_capacity;
  problems.require(capacity == 0 || capacity >= 1, "parallel.expert_capacity {}: room for less than an even load; 1 or more, or 0 for exact counts", capacity);
  problems.require(capacity == 0 || node == 0 || node % grid.etp() == 0 || grid.etp() % node == 0,
                   "of parallel.ranks_per_node {} and etp {} one must divide the other where expert_capacity is set: the ranks of an expert's width fill "
                   "nodes, or share one",
                   node, grid.etp());
}

/// Every global batch that the run will see: on the way of the ramp, and at its end.
std::vector<std::int64_t> batch_sizes(const TrainSection& train) {
  std::vector<std::int64_t> sizes;
  const BatchRampSection& ramp = train.batch_ramp;
  if (ramp.start > 0) {
    const std::int64_t multiple = ramp.multiple > 0 ? ramp.multiple : train.micro_batch;
    for (std::int64_t rows = ramp.start; rows < train.global_batch; rows += multiple) sizes.push_back(rows);
  }
  sizes.push_back(train.global_batch);
  return sizes;
}

void check_batches(const Config& config, const Layout& layout, Problems& problems) {
  const std::int64_t dp = layout.grid.dp(), micro = config.train.micro_batch;
  for (const std::int64_t rows : batch_sizes(config.train)) {
    const bool ramp = rows != config.train.global_batch;
    const std::string batch = ramp ? fmt::format("the global batch {} on the ramp (steps of train.batch_ramp.multiple)", rows)
                                   : fmt::format("train.global_batch {}", rows);
    if (layout.experts_span_dp() && rows % (dp * micro) != 0) {
      problems.require(false, "{} must be a multiple of dp {} x train.micro_batch {} = {}: the experts of ep {} serve several data-parallel ranks, which "
                              "must run equally many micro-batches",
                       batch, dp, micro, dp * micro, layout.grid.ep());
      return;
    }
    for (const std::int64_t dp_rank : {std::int64_t{0}, dp - 1}) {
      const std::int64_t micro_batches = num_micro_batches(config, layout.grid, rows, dp_rank);
      if (micro_batches == 0) continue;  // a place without a sequence waits for the others
      const std::string why = schedule::why_impossible(layout.request(micro_batches));
      problems.require(why.empty(), "{}: {}", batch, why);
      if (!why.empty()) return;
    }
  }
}

}  // namespace

schedule::Kind schedule_kind(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::kGpipe: return schedule::Kind::kGpipe;
    case ScheduleKind::kOneFOneB: return schedule::Kind::kOneFOneB;
    case ScheduleKind::kInterleaved: return schedule::Kind::kInterleaved;
    case ScheduleKind::kZeroBubbleH1: return schedule::Kind::kZeroBubbleH1;
    case ScheduleKind::kZeroBubbleH2: return schedule::Kind::kZeroBubbleH2;
    case ScheduleKind::kDualPipeV: return schedule::Kind::kDualPipeV;
    case ScheduleKind::kDualPipe: return schedule::Kind::kDualPipe;
  }
  return schedule::Kind::kOneFOneB;
}

schedule::Request Layout::request(std::int64_t micro_batches) const {
  return {.kind = kind, .ranks = static_cast<int>(grid.pp()), .micro_batches = static_cast<int>(micro_batches), .chunks = chunks};
}

model::StagePlacement Layout::stage_placement(std::int64_t pp_rank) const {
  model::StagePlacement result;
  for (int slot = 0; slot < placement.num_slots(); ++slot) result.slots.push_back(placement.stage_of(static_cast<int>(pp_rank), slot));
  for (int stage = 0; stage < placement.num_stages(); ++stage) {
    std::vector<std::int64_t> ranks;
    for (const schedule::Location& copy : placement.copies(stage)) ranks.push_back(copy.rank);
    std::ranges::sort(ranks);
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
    result.pp_ranks.push_back(std::move(ranks));
  }
  return result;
}

Layout make_layout(const Config& config, std::int64_t num_ranks) {
  const ParallelSection& p = config.parallel;
  const parallel::ProcessGrid grid(num_ranks, {.pp = p.pp, .cp = p.cp, .tp = p.tp, .ep = p.ep, .etp = p.etp});
  const schedule::Kind kind = schedule_kind(p.schedule);
  const int chunks = kind == schedule::Kind::kInterleaved ? static_cast<int>(p.chunks) : 1;
  const std::int64_t micro_batches = num_micro_batches(config, grid, config.train.global_batch, 0);
  const schedule::Request request{.kind = kind, .ranks = static_cast<int>(grid.pp()), .micro_batches = static_cast<int>(micro_batches), .chunks = chunks};
  Layout layout{.grid = grid, .placement = schedule::placement_of(request), .stages = {}, .kind = kind, .chunks = chunks};
  Problems problems;
  check_tensor(config, grid, problems);
  check_sequence(config, grid, problems);
  check_experts(config, grid, problems);
  check_batches(config, layout, problems);
  problems.raise();
  layout.stages = model::stage_layout(config.model, p, layout.placement.num_stages());
  return layout;
}

std::int64_t num_micro_batches(const Config& config, const parallel::ProcessGrid& grid, std::int64_t rows, std::int64_t dp_rank) {
  // As data::rows_of_rank shares them: the first ranks have one more.
  const std::int64_t mine = rows / grid.dp() + (dp_rank < rows % grid.dp() ? 1 : 0);
  return (mine + config.train.micro_batch - 1) / config.train.micro_batch;
}

}  // namespace hadal::plan
