#include "schedule/simulate.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "schedule/dependency.h"
#include "schedule/peaks.h"

namespace hadal::schedule {
namespace {

const StageTimes& times_of(const Durations& durations, int stage) {
  return durations.stages.size() == 1 ? durations.stages.front() : durations.stages[static_cast<std::size_t>(stage)];
}

}  // namespace

double duration_of(const Action& action, const Durations& durations) {
  const StageTimes& times = times_of(durations, action.work.stage);
  switch (action.op) {
    case Op::kForward:
      return times.forward;
    case Op::kBackward:
      return times.input + times.weight;
    case Op::kBackwardInput:
      return times.input;
    case Op::kBackwardWeight:
      return times.weight;
    case Op::kForwardBackward: {
      const StageTimes& backward = times_of(durations, action.backward.stage);
      return durations.pair_factor * (times.forward + backward.input + backward.weight);
    }
    case Op::kSend:
    case Op::kReceive:
    case Op::kRelease:
      return 0;
  }
  return 0;
}

double Simulation::bubble_share() const {
  const double all = makespan * static_cast<double>(busy.size());
  return all > 0 ? 1 - std::accumulate(busy.begin(), busy.end(), 0.0) / all : 0;
}

Simulation simulate(const Plan& plan, const Durations& durations) {
  const Placement& placement = plan.placement;
  const std::size_t num_ranks = plan.ranks.size();
  HADAL_CHECK(durations.stages.size() == 1 || static_cast<int>(durations.stages.size()) == placement.num_stages(),
              "durations of {} stages for {}", durations.stages.size(), placement.num_stages());

  constexpr double kNever = -1;
  std::vector<double> produced(num_messages(placement), kNever);
  std::vector<double> clock(num_ranks, 0);
  Simulation result;
  result.spans.resize(num_ranks);
  result.busy.assign(num_ranks, 0);
  result.peak_activations = peak_activations(plan);

  // When the inputs of an action have arrived at `rank`; kNever while one is not computed.
  const auto arrival = [&](int rank, const Action& action) {
    double latest = 0;
    for (const Edge& edge : inputs_of(placement, action)) {
      const double end = produced[message_index(placement, edge.message)];
      if (end == kNever) return kNever;
      const bool remote = producer(placement, edge.message).rank != rank;
      latest = std::max(latest, end + (remote ? durations.transfer : 0));
    }
    return latest;
  };

  bool moved = true;
  while (moved) {
    moved = false;
    for (std::size_t rank = 0; rank < num_ranks; ++rank) {
      const ActionList& list = plan.ranks[rank];
      std::vector<Span>& spans = result.spans[rank];
      while (spans.size() < list.size()) {
        const Action& action = list[spans.size()];
        const double ready = arrival(static_cast<int>(rank), action);
        if (ready == kNever) break;
        const double start = std::max(clock[rank], ready);
        const double length = duration_of(action, durations);
        clock[rank] = start + length;
        result.busy[rank] += length;
        spans.push_back({start, clock[rank]});
        for (const Edge& edge : outputs_of(placement, action)) produced[message_index(placement, edge.message)] = clock[rank];
        moved = true;
      }
    }
  }
  for (std::size_t rank = 0; rank < num_ranks; ++rank) {
    HADAL_CHECK(result.spans[rank].size() == plan.ranks[rank].size(), "rank {} waits for ever at action {}", rank,
                result.spans[rank].size());
    result.makespan = std::max(result.makespan, clock[rank]);
    const auto first = std::ranges::find_if(plan.ranks[rank], [](const Action& action) { return !is_transfer(action.op); });
    const double begin = first == plan.ranks[rank].end()
                             ? 0
                             : result.spans[rank][static_cast<std::size_t>(first - plan.ranks[rank].begin())].start;
    result.idle_inside.push_back(clock[rank] - begin - result.busy[rank]);
  }
  return result;
}

}  // namespace hadal::schedule
