#include "verify/verify.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "verify/layouts.h"
#include "verify/shrink.h"
#include "verify/synthetic_data.h"
#include "verify/trajectory.h"

namespace hadal::verify {
namespace {

std::unique_ptr<data::Sampler> sampler_of(const Config& small) {
  return synthetic_sampler(small.model.vocab_size, small.data.sequence_length, static_cast<std::uint64_t>(small.run.seed));
}

double relative(double value, double expected) {
  const double size = std::max(std::abs(expected), 1e-300);
  return value == expected ? 0.0 : std::abs(value - expected) / size;
}

/// Keeps the worst of what is compared.
class Judge {
 public:
  explicit Judge(LayoutResult& result) : result_(result) {}

  void see(double error, std::string what) {
    if (std::isnan(error) || error > result_.worst_error) {
      result_.worst_error = error;
      result_.tensor = std::move(what);
    }
  }
  void see(const LogicalTensors& tensors, const LogicalTensors& reference, const char* what) {
    const LogicalTensors::Difference difference = tensors.compare(reference);
    if (!difference.problem.empty()) result_.problem = fmt::format("{}: {}", what, difference.problem);
    see(difference.worst, fmt::format("{} {}", what, difference.tensor));
  }

 private:
  LayoutResult& result_;
};

void compare(const Trajectory& run, const Trajectory& reference, LayoutResult& result) {
  Judge judge(result);
  judge.see(run.gradients, reference.gradients, "gradient of");
  judge.see(run.parameters, reference.parameters, "three steps of");
  if (run.steps.size() != reference.steps.size()) result.problem = "not all steps ran";
  for (std::size_t s = 0; s < std::min(run.steps.size(), reference.steps.size()); ++s) {
    const train::StepResult& mine = run.steps[s];
    const train::StepResult& expected = reference.steps[s];
    judge.see(relative(mine.loss, expected.loss), fmt::format("loss of step {}", s + 1));
    for (std::size_t k = 0; k < expected.mtp_loss.size(); ++k) {
      judge.see(relative(mine.mtp_loss[k], expected.mtp_loss[k]), fmt::format("MTP loss {} of step {}", k + 1, s + 1));
    }
    judge.see(relative(mine.balance_loss, expected.balance_loss), fmt::format("balance loss of step {}", s + 1));
    judge.see(relative(mine.grad_norm, expected.grad_norm), fmt::format("gradient norm of step {}", s + 1));
  }
  for (std::size_t i = 0; i < reference.loads.size(); ++i) {
    if (run.loads.size() != reference.loads.size() || run.loads[i].counts != reference.loads[i].counts) {
      result.problem = fmt::format("layer {}: experts were chosen otherwise", reference.loads[i].layer_idx);
      break;
    }
  }
  result.passed = result.problem.empty() && result.worst_error <= kTolerance;
}

LayoutResult run_layout(const Config& small, const ParallelSection& layout, std::int64_t ranks, const Trajectory& reference) {
  LayoutResult result;
  result.name = describe(layout, ranks);
  const auto begin = std::chrono::steady_clock::now();
  try {
    Config config = small;
    config.parallel = layout;
    Trajectory run;
    run_trajectory(config, ranks, *sampler_of(small), run);
    compare(run, reference, result);
  } catch (const std::exception& error) {
    result.problem = error.what();
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

/// Stages of the deepest pipeline among the layouts.
std::int64_t most_stages(const std::vector<ParallelSection>& layouts) {
  std::int64_t stages = 1;
  for (const ParallelSection& layout : layouts) {
    const bool two = layout.schedule == ScheduleKind::kDualPipeV;
    const std::int64_t per_rank = layout.schedule == ScheduleKind::kInterleaved ? layout.chunks : two ? 2 : 1;
    stages = std::max(stages, layout.pp * per_rank);
  }
  return stages;
}

}  // namespace

LayoutResult verify_layout(const Config& small, const ParallelSection& layout, std::int64_t ranks) {
  Trajectory reference;
  run_trajectory(small, 1, *sampler_of(small), reference);
  return run_layout(small, layout, ranks, reference);
}

std::vector<LayoutResult> verify(const Config& config, const VerifyOptions& options,
                                 const std::function<void(const LayoutResult&, std::size_t, std::size_t)>& report) {
  // As many layers as the deepest pipeline needs, found with room for any.
  const Config roomy = shrink(config, options.ranks, 4 * options.ranks);
  std::vector<ParallelSection> layouts = options.full ? all_layouts(roomy, options.ranks) : covering_layouts(roomy, options.ranks);
  layouts.insert(layouts.begin(), scale_down(config.parallel, roomy, options.ranks));
  const Config small = shrink(config, options.ranks, most_stages(layouts));

  Trajectory reference;
  run_trajectory(small, 1, *sampler_of(small), reference);
  std::vector<LayoutResult> results;
  for (const ParallelSection& layout : layouts) {
    LayoutResult result = run_layout(small, layout, options.ranks, reference);
    if (results.empty()) result.name = "yours: " + result.name;
    results.push_back(std::move(result));
    report(results.back(), results.size(), layouts.size());
  }
  return results;
}

}  // namespace hadal::verify
