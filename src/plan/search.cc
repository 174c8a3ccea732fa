#include "plan/search.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "model/layer_options.h"
#include "schedule/make_plan.h"

namespace hadal::plan {
namespace {

constexpr std::int64_t kMostPipelineRanks = 64, kMostContextRanks = 16, kMostMicroBatch = 8;

std::vector<std::int64_t> divisors(std::int64_t n, std::int64_t most) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 1; i <= std::min(n, most); ++i) {
    if (n % i == 0) result.push_back(i);
  }
  return result;
}

struct ScheduleChoice {
  ScheduleKind kind;
  std::int64_t chunks;
};

constexpr ScheduleChoice kSchedules[] = {{ScheduleKind::kOneFOneB, 2},     {ScheduleKind::kInterleaved, 2},
                                         {ScheduleKind::kInterleaved, 4},  {ScheduleKind::kZeroBubbleH1, 2},
                                         {ScheduleKind::kZeroBubbleH2, 2}, {ScheduleKind::kDualPipeV, 2},
                                         {ScheduleKind::kDualPipe, 2},     {ScheduleKind::kGpipe, 2}};

/// Quick refusals; make_layout has the last word.
bool may_be_laid_out(const ModelSection& model, const ParallelSection& p) {
  const std::int64_t stages = p.pp * model::stages_per_rank(p);
  return stages <= model.num_layers + 2 + model.mtp.depth && model.attention.num_heads % p.tp == 0 &&
         (p.ep * p.etp == 1 ||
          (model.moe.num_experts > 0 && model.moe.num_experts % p.ep == 0 && model.moe.intermediate_size % p.etp == 0));
}

/// Weights and gradients of the fullest rank are at least those of the mean one.
double least_state_bytes(const Config& config, const Layout& layout, const ForecastOptions& options) {
  const Formats formats = formats_of(config, options.machine);
  double numel = 0;
  for (std::int64_t pp_rank = 0; pp_rank < layout.grid.pp(); ++pp_rank) {
    for (const ParameterSize& parameter : rank_parameters(config, layout, {.pp_rank = pp_rank}))
      numel += static_cast<double>(parameter.numel);
  }
  return numel / static_cast<double>(layout.grid.pp()) *
         static_cast<double>(size_of(formats.compute) + size_of(formats.gradient));
}

struct Open {
  Try chosen;
  double least_s;
};

/// Plans that many layouts share.
class Plans {
 public:
  const schedule::Plan& of(const Layout& layout, std::int64_t micro_batches) {
    const auto [found, is_new] = plans_.try_emplace({layout.kind, layout.grid.pp(), layout.chunks, micro_batches});
    if (!is_new) return found->second.front();
    constexpr std::size_t kMostActions = 4'000'000;
    schedule::Plan plan = schedule::make_plan(layout.request(micro_batches));
    for (const schedule::ActionList& list : plan.ranks) actions_ += list.size();
    if (actions_ > kMostActions) {
      const auto key = found->first;
      plans_.clear();
      actions_ = 0;
      return plans_[key].emplace_back(std::move(plan));
    }
    return found->second.emplace_back(std::move(plan));
  }
  /// The same schedule with at most four micro-batches per stage: what is in flight at its peak is there by then, or grows
  /// further.
  const schedule::Plan& early(const Layout& layout, std::int64_t micro_batches) {
    return of(layout, std::min<std::int64_t>(micro_batches, 4 * layout.placement.num_stages()));
  }

 private:
  std::map<std::tuple<schedule::Kind, std::int64_t, int, std::int64_t>, std::vector<schedule::Plan>> plans_;
  std::size_t actions_ = 0;
};

/// Memory of the fullest rank in a step of `plan`.
std::int64_t early_peak_bytes(const Config& config, const Layout& layout, const RankShape& shape, const schedule::Plan& plan) {
  const std::map<std::int64_t, StageMemory> stages = stage_memories(layout, shape);
  std::int64_t peak = 0;
  for (std::int64_t pp_rank = 0; pp_rank < layout.grid.pp(); ++pp_rank) {
    peak = std::max(peak, rank_memory(config, layout, shape, {.pp_rank = pp_rank}, plan, stages).peak);
  }
  return peak;
}

/// The layout in full, or nothing when it does not fit.
std::optional<Candidate> evaluate(const Config& config, const Try& chosen, std::int64_t num_ranks, const ForecastOptions& options,
                                  Plans& plans) {
  const Layout layout = make_layout(config, num_ranks);
  const RankShape shape(config, layout, options);
  const double usable = usable_bytes(options.machine);
  const std::int64_t micro_batches = num_micro_batches(config, layout.grid, config.train.global_batch, 0);
  if (static_cast<double>(early_peak_bytes(config, layout, shape, plans.early(layout, micro_batches))) > usable)
    return std::nullopt;
  const schedule::Plan& plan = plans.of(layout, micro_batches);
  const std::vector<RankForecast> ranks = rank_forecasts(config, layout, shape, plan);
  if (static_cast<double>(peak_bytes(ranks)) > usable) return std::nullopt;
  const StepTime time = step_time(config, layout, shape, options.machine, plan, state_traffic(ranks));
  const double tokens = static_cast<double>(config.train.global_batch * config.data.sequence_length);
  return Candidate{chosen.parallel,   chosen.micro_batch, time.total(), tokens / time.total() / static_cast<double>(num_ranks),
                   time.bubble_share, peak_bytes(ranks)};
}

}  // namespace

Config Try::applied_to(const Config& config) const {
  Config result = config;
  result.parallel = parallel;
  result.train.micro_batch = micro_batch;
  return result;
}

std::vector<Try> layouts_to_try(const Config& config, std::int64_t num_ranks, const MachineSection& machine) {
  std::vector<Try> tries;
  const std::int64_t experts = std::max<std::int64_t>(config.model.moe.num_experts, 1);
  const auto add = [&](const ParallelSection& parallel) {
    if (!may_be_laid_out(config.model, parallel)) return;
    const std::int64_t dp = num_ranks / (parallel.pp * parallel.cp * parallel.tp);
    for (std::int64_t micro = 1; micro <= kMostMicroBatch && micro * dp <= config.train.global_batch; micro *= 2) {
      if (config.train.global_batch % micro == 0) tries.push_back({parallel, micro});
    }
  };
  for (const std::int64_t pp : divisors(num_ranks, kMostPipelineRanks)) {
    const std::int64_t stage_ranks = num_ranks / pp;
    for (const std::int64_t tp : divisors(stage_ranks, machine.ranks_per_node)) {
      for (const std::int64_t cp : divisors(stage_ranks / tp, kMostContextRanks)) {
        for (const std::int64_t ep : divisors(stage_ranks, experts)) {
          for (const std::int64_t etp : tp > 1 ? std::vector<std::int64_t>{1, tp} : std::vector<std::int64_t>{1}) {
            if (stage_ranks % (ep * etp) != 0) continue;
            ParallelSection p;
            p.tp = tp;
            p.cp = cp;
            p.pp = pp;
            p.ep = ep;
            p.etp = etp;
            const std::int64_t members = ep * etp, node = machine.ranks_per_node;
            if (members > node && members % node == 0 && node > 1) p.ranks_per_node = node;
            for (const ScheduleChoice& schedule : kSchedules) {
              if (pp == 1 && schedule.kind != ScheduleKind::kOneFOneB) continue;
              p.schedule = schedule.kind;
              p.chunks = schedule.chunks;
              add(p);
            }
          }
        }
      }
    }
  }
  return tries;
}

double least_step_s(const Config& config, const Layout& layout, const ForecastOptions& options) {
  const RankShape shape(config, layout, options);
  const StageDurations durations = stage_durations(layout, shape, options.machine);
  double work = 0;
  for (const schedule::StageTimes& stage : durations.durations.stages) work += stage.forward + stage.input + stage.weight;
  const auto micro_batches = static_cast<double>(num_micro_batches(config, layout.grid, config.train.global_batch, 0));
  const bool pairs = layout.kind == schedule::Kind::kDualPipe || layout.kind == schedule::Kind::kDualPipeV;
  return work * micro_batches * (pairs ? durations.durations.pair_factor : 1) / static_cast<double>(layout.grid.pp());
}

std::vector<Candidate> search(const Config& config, std::int64_t num_ranks, const ForecastOptions& options, std::size_t count) {
  const double usable = usable_bytes(options.machine);
  std::vector<Open> open;
  for (const Try& one : layouts_to_try(config, num_ranks, options.machine)) {
    try {
      const Config tried = one.applied_to(config);
      const Layout layout = make_layout(tried, num_ranks);
      if (least_state_bytes(tried, layout, options) <= usable) open.push_back({one, least_step_s(tried, layout, options)});
    } catch (const UserError&) {
      // Not a layout of this model; make_layout says why to those who ask for it.
    }
  }
  std::ranges::stable_sort(open, {}, &Open::least_s);
  Plans plans;
  std::vector<Candidate> best;
  for (const Open& next : open) {
    if (best.size() == count && next.least_s > best.back().step_s) break;
    const std::optional<Candidate> candidate = evaluate(next.chosen.applied_to(config), next.chosen, num_ranks, options, plans);
    if (!candidate) continue;
    best.push_back(*candidate);
    std::ranges::stable_sort(best, {}, &Candidate::step_s);
    if (best.size() > count) best.pop_back();
  }
  return best;
}

}  // namespace hadal::plan
