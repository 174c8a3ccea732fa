#include "plan/forecast.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "schedule/make_plan.h"

namespace hadal::plan {
namespace {

/// Every efficiency times `factor`, at most 1.
MachineSection scaled(MachineSection machine, double factor) {
  MachineEfficiencySection& e = machine.efficiency;
  for (double* share : {&e.gemm, &e.grouped_gemm, &e.attention_forward, &e.attention_backward, &e.sparse_attention, &e.memory,
                        &e.intra, &e.inter}) {
    *share = std::min(1.0, *share * factor);
  }
  return machine;
}

}  // namespace

std::int64_t peak_bytes(const std::vector<RankForecast>& ranks) {
  std::int64_t peak = 0;
  for (const RankForecast& rank : ranks) peak = std::max(peak, rank.memory.peak);
  return peak;
}

double usable_bytes(const MachineSection& machine) { return (machine.memory_gib - machine.reserve_gib) * 1024 * 1024 * 1024; }

std::int64_t smallest_num_ranks(const ParallelSection& p) {
  const std::int64_t stage = std::lcm(p.cp * p.tp, p.ep * p.etp);
  return p.pp * stage;
}

std::map<std::int64_t, StageMemory> stage_memories(const Layout& layout, const RankShape& shape) {
  std::map<std::int64_t, StageMemory> stages;
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    stages[static_cast<std::int64_t>(s)] = stage_memory(shape, layout.stages[s], layout.placement.is_last(static_cast<int>(s)));
  }
  return stages;
}

std::vector<RankForecast> rank_forecasts(const Config& config, const Layout& layout, const RankShape& shape,
                                         const schedule::Plan& plan) {
  const std::map<std::int64_t, StageMemory> stages = stage_memories(layout, shape);
  std::vector<RankForecast> ranks;
  for (std::int64_t pp_rank = 0; pp_rank < layout.grid.pp(); ++pp_rank) {
    const parallel::Place place{.pp_rank = pp_rank};
    RankForecast rank{.pp_rank = pp_rank};
    for (const std::int64_t stage : layout.stage_placement(pp_rank).slots) {
      rank.content += (rank.content.empty() ? "" : " | ") + layout.stages[static_cast<std::size_t>(stage)].describe();
    }
    for (const ParameterSize& parameter : rank_parameters(config, layout, place))
      rank.parameters[static_cast<std::size_t>(parameter.kind)] += parameter.numel;
    rank.memory = rank_memory(config, layout, shape, place, plan, stages);
    rank.wire = wire_bytes(config, layout, shape, place, plan);
    ranks.push_back(std::move(rank));
  }
  return ranks;
}

StateTraffic state_traffic(const std::vector<RankForecast>& ranks) {
  StateTraffic state;
  for (const RankForecast& rank : ranks) {
    state.gradient_bytes = std::max(state.gradient_bytes, rank.wire.gradients);
    state.value_bytes = std::max(state.value_bytes, rank.wire.values);
    state.gradient_memory = std::max(state.gradient_memory, static_cast<double>(rank.memory.gradients));
    state.optimizer_memory = std::max(state.optimizer_memory, static_cast<double>(rank.memory.optimizer));
  }
  return state;
}

Forecast forecast(const Config& config, std::int64_t num_ranks, const ForecastOptions& options) {
  const Layout layout = make_layout(config, num_ranks);
  const std::int64_t micro_batches = num_micro_batches(config, layout.grid, config.train.global_batch, 0);
  Forecast result{.layout = layout, .plan = schedule::make_plan(layout.request(micro_batches)), .micro_batches = micro_batches};
  const RankShape shape(config, layout, options);
  result.ranks = rank_forecasts(config, layout, shape, result.plan);
  const StateTraffic state = state_traffic(result.ranks);
  result.tokens_per_step = static_cast<double>(config.train.global_batch * config.data.sequence_length);
  const auto rate = [&](const StepTime& time) { return result.tokens_per_step / time.total() / static_cast<double>(num_ranks); };
  const auto time_at = [&](double factor) {
    return step_time(config, layout, shape, scaled(options.machine, factor), result.plan, state);
  };
  result.time = time_at(1);
  const double spread = options.machine.efficiency.spread;
  result.tokens_per_s_per_rank = rate(result.time);
  result.slowest_tokens_per_s_per_rank = rate(time_at(1 - spread));
  result.fastest_tokens_per_s_per_rank = rate(time_at(1 + spread));
  result.rank_hours_per_trillion_tokens = 1e12 / result.tokens_per_s_per_rank / 3600;
  return result;
}

}  // namespace hadal::plan
