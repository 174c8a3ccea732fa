// What a config costs on a number of ranks of a machine, without making a tensor: parameters, memory, bytes on the wire, time.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "plan/rank_memory.h"
#include "plan/step_time.h"
#include "plan/wire_bytes.h"
#include "schedule/simulate.h"

namespace hadal::plan {

/// Of one rank in each pipeline stage, the one that holds most (first of its dp, cp and tp ranks).
struct RankForecast {
  std::int64_t pp_rank = 0;
  std::string content{};  ///< "layers 3-6", by slot
  std::array<std::int64_t, kNumParameterKinds> parameters{};
  RankMemory memory{};
  WireBytes wire{};
};

struct Forecast {
  Layout layout;
  schedule::Plan plan;
  std::int64_t micro_batches = 0;     ///< of a step, of the first data-parallel place
  std::vector<RankForecast> ranks{};  ///< by pipeline rank
  StepTime time{};

  double tokens_per_step = 0;
  double tokens_per_s_per_rank = 0;
  double slowest_tokens_per_s_per_rank = 0;  ///< of the machine's spread
  double fastest_tokens_per_s_per_rank = 0;
  double rank_hours_per_trillion_tokens = 0;
};

/// Of every stage of the layout.
std::map<std::int64_t, StageMemory> stage_memories(const Layout& layout, const RankShape& shape);

/// By pipeline rank, in a step of `plan`.
std::vector<RankForecast> rank_forecasts(const Config& config, const Layout& layout, const RankShape& shape,
                                         const schedule::Plan& plan);
StateTraffic state_traffic(const std::vector<RankForecast>& ranks);
std::int64_t peak_bytes(const std::vector<RankForecast>& ranks);

/// UserError when the config has no layout on `num_ranks` ranks.
Forecast forecast(const Config& config, std::int64_t num_ranks, const ForecastOptions& options);

/// Ranks that pp, cp, tp, ep and etp ask for: the fewest on which the config has a layout.
std::int64_t smallest_num_ranks(const ParallelSection& parallel);

/// Memory that a rank of the machine has for the program.
double usable_bytes(const MachineSection& machine);

}  // namespace hadal::plan
