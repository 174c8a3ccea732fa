#include "plan/forecast_json.h"

#include <nlohmann/json.hpp>

namespace hadal::plan {
namespace {

using Json = nlohmann::ordered_json;

Json memory_json(const RankMemory& m) {
  return {{"weights", m.weights},     {"gradients", m.gradients},
          {"optimizer", m.optimizer}, {"average", m.average},
          {"inputs", m.inputs},       {"activations", m.activations},
          {"transfers", m.transfers}, {"workspace", m.work},
          {"peak", m.peak},           {"micro_batches_in_flight", m.micro_batches_in_flight}};
}

Json wire_json(const WireBytes& w) {
  return {{"tp", w.layers.tp},
          {"cp", w.layers.cp},
          {"pp", w.pp},
          {"ep_intra", w.layers.ep_intra},
          {"ep_inter", w.layers.ep_inter},
          {"dp_gradients", w.gradients},
          {"dp_values", w.values}};
}

Json rank_json(const RankForecast& rank) {
  Json parameters;
  for (int kind = 0; kind < kNumParameterKinds; ++kind) {
    parameters[std::string(name_of(static_cast<ParameterKind>(kind)))] = rank.parameters[static_cast<std::size_t>(kind)];
  }
  return {{"pp_rank", rank.pp_rank},
          {"stage", rank.content},
          {"parameters", parameters},
          {"memory", memory_json(rank.memory)},
          {"sent", wire_json(rank.wire)}};
}

}  // namespace

std::string forecast_json(const Forecast& f, const ForecastOptions& options) {
  Json ranks = Json::array(), peaks = Json::array();
  for (const RankForecast& rank : f.ranks) {
    ranks.push_back(rank_json(rank));
    peaks.push_back(rank.memory.peak);
  }
  const Json figures{{"machine", options.machine.name},
                     {"num_ranks", f.layout.grid.num_ranks()},
                     {"gpu_hours_per_trillion_tokens", f.rank_hours_per_trillion_tokens},
                     {"tokens_per_s_per_gpu", f.tokens_per_s_per_rank},
                     {"tokens_per_s_per_gpu_range", {f.slowest_tokens_per_s_per_rank, f.fastest_tokens_per_s_per_rank}},
                     {"step_ms", 1e3 * f.time.total()},
                     {"bubble_share", f.time.bubble_share},
                     {"exposed_transfer_share", f.time.exposed_share},
                     {"waited_share", f.time.waited_share()},
                     {"peak_bytes", peaks},
                     {"fits", static_cast<double>(peak_bytes(f.ranks)) <= usable_bytes(options.machine)},
                     {"ranks", ranks}};
  return figures.dump(2);
}

}  // namespace hadal::plan
