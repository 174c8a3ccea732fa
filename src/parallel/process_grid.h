// Where a rank stands: dense axes pp x dp x cp x tp, and expert axes pp x edp x ep x etp folded over the same ranks
// (spec/parallelism.md 2). Pure arithmetic; communicators are made from it in rank_groups.h.
//
//   world rank = ((pp_rank * dp + dp_rank) * cp + cp_rank) * tp + tp_rank
//   inside a stage of dp * cp * tp ranks:  place = (edp_rank * ep + ep_rank) * etp + etp_rank
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/parameter.h"

namespace hadal::parallel {

/// Degrees that are asked for; dp and edp are what is left of the ranks.
struct Degrees {
  std::int64_t pp = 1, cp = 1, tp = 1;
  std::int64_t ep = 1, etp = 1;
};

/// Coordinates of one rank.
struct Place {
  std::int64_t pp_rank = 0, dp_rank = 0, cp_rank = 0, tp_rank = 0;
  std::int64_t edp_rank = 0, ep_rank = 0, etp_rank = 0;
};

class ProcessGrid {
 public:
  /// One rank.
  ProcessGrid() = default;
  /// UserError with every value when pp * cp * tp does not divide the ranks, or ep * etp not the ranks of a stage.
  ProcessGrid(std::int64_t num_ranks, const Degrees& degrees);

  std::int64_t num_ranks() const { return num_ranks_; }
  std::int64_t pp() const { return degrees_.pp; }
  std::int64_t dp() const { return stage_ranks() / (degrees_.cp * degrees_.tp); }
  std::int64_t cp() const { return degrees_.cp; }
  std::int64_t tp() const { return degrees_.tp; }
  std::int64_t edp() const { return stage_ranks() / (degrees_.ep * degrees_.etp); }
  std::int64_t ep() const { return degrees_.ep; }
  std::int64_t etp() const { return degrees_.etp; }
  /// Ranks of one pipeline stage, dp * cp * tp.
  std::int64_t stage_ranks() const { return num_ranks_ / degrees_.pp; }

  Place place(int world_rank) const;
  /// "pp 1 dp 0 cp 0 tp 1 ep 3": the axes that have more than one rank, with the rank's coordinate.
  std::string describe(int world_rank) const;

  // World ranks that differ from `world_rank` in the named coordinates alone, ascending in them.
  std::vector<int> tp_group(int world_rank) const;
  std::vector<int> cp_group(int world_rank) const;
  std::vector<int> pp_group(int world_rank) const;
  /// Ranks that hold tokens of the same sequences: cp x tp.
  std::vector<int> sequence_group(int world_rank) const;
  /// Ranks among which tokens travel to experts: ep x etp.
  std::vector<int> expert_group(int world_rank) const;
  /// Ranks that hold the same slice of a parameter of this kind, on each of the pipeline ranks `pp_ranks` (ascending) in turn.
  std::vector<int> replica_group(int world_rank, nn::Replication replication, const std::vector<std::int64_t>& pp_ranks) const;

 private:
  int at(std::int64_t pp_rank, std::int64_t place_in_stage) const { return static_cast<int>(pp_rank * stage_ranks() + place_in_stage); }

  std::int64_t num_ranks_ = 1;
  Degrees degrees_;
};

}  // namespace hadal::parallel
