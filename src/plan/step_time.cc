#include "plan/step_time.h"

#include <algorithm>

#include "model/layer_options.h"

namespace hadal::plan {
namespace {

LayerTime stage_time(const RankShape& shape, const LayerClock& clock, const model::StageContent& stage) {
  const AttentionSection& a = shape.model.attention;
  const auto block = [&](std::int64_t layer) {
    const bool sparse = a.sparse == SparseKind::kNsa && std::ranges::find(a.dense_layers, layer) == a.dense_layers.end();
    return clock.block(sparse, model::is_moe_layer(shape.model, layer));
  };
  LayerTime time;
  if (stage.embedding) time += clock.embedding();
  for (std::int64_t i = 0; i < stage.num_layers; ++i) time += block(stage.first_layer + i);
  if (stage.head) time += clock.head();
  for (std::int64_t k = 0; k < stage.num_mtp; ++k) {
    time += clock.embedding();
    time += clock.mtp_projection();
    time += block(shape.model.num_layers + stage.first_mtp + k);
    time += clock.head();
  }
  return time;
}

/// F&B over F + B: what of the transfers the pair's computations hide, over all stages.
double pair_factor(const std::vector<LayerTime>& stages, double hidden) {
  double alone = 0, together = 0;
  for (const LayerTime& stage : stages) {
    const double compute = stage.forward.compute + stage.input.compute + stage.weight.compute;
    const double transfer = stage.forward.transfer + stage.input.transfer + stage.weight.transfer;
    const double one_by_one = stage.forward.alone() + stage.input.alone() + stage.weight.alone();
    alone += one_by_one;
    together += (1 - hidden) * one_by_one + hidden * std::max(compute, transfer);
  }
  return alone > 0 ? std::min(1.0, together / alone) : 1;
}

}  // namespace

StageDurations stage_durations(const Layout& layout, const RankShape& shape, const MachineSection& machine) {
  const LayerClock clock(shape, machine);
  std::vector<LayerTime> stages;
  StageDurations result;
  result.durations.stages.clear();
  for (const model::StageContent& stage : layout.stages) {
    stages.push_back(stage_time(shape, clock, stage));
    const LayerTime& t = stages.back();
    result.durations.stages.push_back({.forward = t.forward.alone(), .input = t.input.alone(), .weight = t.weight.alone()});
    result.compute += t.forward.compute + t.input.compute + t.weight.compute;
  }
  result.durations.pair_factor = pair_factor(stages, machine.overlap.pairs);
  const double boundary =
      static_cast<double>(shape.token_rows * shape.model.hidden_size) * static_cast<double>(size_of(shape.formats.compute));
  result.durations.transfer = layout.grid.pp() > 1 ? clock.send(boundary, layout.grid.stage_ranks() + 1, 1) : 0;
  return result;
}

StepTime step_time(const Config& config, const Layout& layout, const RankShape& shape, const MachineSection& machine,
                   const schedule::Plan& plan, const StateTraffic& state) {
  StepTime time;
  const StageDurations stages = stage_durations(layout, shape, machine);
  time.durations = stages.durations;
  time.simulation = schedule::simulate(plan, time.durations);
  time.pipeline = time.simulation.makespan;
  time.bubble_share = time.simulation.bubble_share();
  const double micro_batches = plan.placement.num_micro_batches();
  time.exposed_share = std::max(
      0.0, 1 - time.bubble_share - stages.compute * micro_batches / (time.pipeline * static_cast<double>(plan.ranks.size())));

  const LayerClock clock(shape, machine);
  const std::int64_t stage_ranks = layout.grid.stage_ranks();
  double last_backward = 0;
  for (const schedule::StageTimes& stage : time.durations.stages)
    last_backward = std::max(last_backward, stage.input + stage.weight);
  const double reduction = clock.send(state.gradient_bytes, stage_ranks, 1);
  time.gradients = std::max(0.0, reduction - machine.overlap.gradients * last_backward);
  time.values = clock.send(state.value_bytes, stage_ranks, 1);
  // Gradients are zeroed, the owned ones read twice (norm, update); moments and master weights are read and written.
  const double averages = config.optim.ema_decay > 0 ? 1.0 : 0.0;
  time.optimizer = clock.pass(state.gradient_memory + (2.5 + averages) * state.optimizer_memory);
  return time;
}

}  // namespace hadal::plan
