// A config on a number of ranks: the process grid, what each pipeline stage holds, and the schedule. Everything that can be refused
// about a layout is refused here, before a tensor is made; trainer, planner and verifier start from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/distributed_model.h"
#include "model/stage_layout.h"
#include "parallel/process_grid.h"
#include "schedule/make_plan.h"

namespace hadal::plan {

struct Layout {
  parallel::ProcessGrid grid;
  schedule::Placement placement;
  std::vector<model::StageContent> stages;  ///< all of the model, by stage

  /// The schedule's request for one step of `micro_batches` per data-parallel rank.
  schedule::Request request(std::int64_t micro_batches) const;
  /// Which stages pipeline rank `pp_rank` holds, and who holds each.
  model::StagePlacement stage_placement(std::int64_t pp_rank) const;
  /// Ranks of several data-parallel places exchange tokens, so that all of them must run equally many micro-batches.
  bool experts_span_dp() const { return grid.ep() * grid.etp() > grid.cp() * grid.tp(); }

  schedule::Kind kind = schedule::Kind::kOneFOneB;
  int chunks = 1;
};

schedule::Kind schedule_kind(ScheduleKind kind);

/// UserError that lists everything about the config's parallel section that cannot be on `num_ranks` ranks: products, heads, channels,
/// experts, sequence chunks, stages, micro-batches of every batch size of the run.
Layout make_layout(const Config& config, std::int64_t num_ranks);

/// Micro-batches that data-parallel rank `dp_rank` runs of a global batch of `rows` sequences.
std::int64_t num_micro_batches(const Config& config, const parallel::ProcessGrid& grid, std::int64_t rows, std::int64_t dp_rank);

}  // namespace hadal::plan
