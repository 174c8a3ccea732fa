#include "verify/reference.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "verify/layouts.h"
#include "verify/synthetic_data.h"

namespace hadal::verify {
namespace {

double relative(double value, double expected) {
  const double size = std::max(std::abs(expected), 1e-300);
  return value == expected ? 0.0 : std::abs(value - expected) / size;
}

/// Keeps the worst error of what is compared, and the name of the first that is too large, or of the worst as long as none is.
class Judge {
 public:
  Judge(LayoutResult& result, double tolerance) : result_(result), tolerance_(tolerance) {}

  void see(double error, std::string what) {
    const bool worse = std::isnan(error) || error > result_.worst_error;
    if (!worse) return;
    if (result_.worst_error <= tolerance_) result_.tensor = std::move(what);
    result_.worst_error = error;
  }
  void see(const LogicalTensors& tensors, const LogicalTensors& reference, const char* what) {
    const LogicalTensors::Difference difference = tensors.compare(reference);
    if (!difference.problem.empty()) problem(fmt::format("{}: {}", what, difference.problem));
    see(difference.worst, fmt::format("{} {}", what, difference.tensor));
  }
  void see_losses(const train::StepResult& mine, const train::StepResult& expected, std::size_t step) {
    see(relative(mine.loss, expected.loss), fmt::format("loss of step {}", step));
    for (std::size_t k = 0; k < expected.mtp_loss.size(); ++k) {
      see(relative(mine.mtp_loss[k], expected.mtp_loss[k]), fmt::format("MTP loss {} of step {}", k + 1, step));
    }
    see(relative(mine.balance_loss, expected.balance_loss), fmt::format("balance loss of step {}", step));
  }
  /// The first one counts.
  void problem(std::string text) {
    if (result_.problem.empty()) result_.problem = std::move(text);
  }

 private:
  LayoutResult& result_;
  double tolerance_;
};

}  // namespace

Reference::Reference(const Config& small)
    : config_(small),
      sampler_(synthetic_sampler(small.model.vocab_size, small.data.sequence_length, static_cast<std::uint64_t>(small.run.seed))) {
  run_trajectory(config_, 1, *sampler_, trajectory_);
}

Config Reference::laid_out(const ParallelSection& layout) const {
  Config config = config_;
  config.parallel = layout;
  return config;
}

LayoutResult Reference::judge(const Trajectory& run) const {
  LayoutResult result;
  Judge judge(result, tolerance_of(config_));
  // In the order in which a step makes them: the first that differs is nearest to the cause.
  if (run.steps.size() != trajectory_.steps.size()) judge.problem("not all steps ran");
  for (std::size_t i = 0; i < trajectory_.loads.size(); ++i) {
    const bool same = run.loads.size() == trajectory_.loads.size() && run.loads[i].counts == trajectory_.loads[i].counts;
    if (!same) judge.problem(fmt::format("layer {}: experts were chosen otherwise", trajectory_.loads[i].layer_idx));
  }
  for (std::size_t s = 0; s < std::min(run.steps.size(), trajectory_.steps.size()); ++s) {
    judge.see_losses(run.steps[s], trajectory_.steps[s], s + 1);
    if (s == 0) judge.see(run.gradients, trajectory_.gradients, "gradient of");
    judge.see(relative(run.steps[s].grad_norm, trajectory_.steps[s].grad_norm), fmt::format("gradient norm of step {}", s + 1));
  }
  // AdamW moves an element by its rate however small the gradient is, and in f32 rounding has its say in the smallest ones.
  if (config_.precision.compute == ComputeType::kF64) judge.see(run.parameters, trajectory_.parameters, "three steps of");
  result.passed = result.problem.empty() && result.worst_error <= tolerance_of(config_);
  return result;
}

LayoutResult Reference::prove(const ParallelSection& layout, std::int64_t ranks) const {
  LayoutResult result;
  const auto begin = std::chrono::steady_clock::now();
  try {
    Trajectory run;
    run_trajectory(laid_out(layout), ranks, *sampler_, run);
    result = judge(run);
  } catch (const std::exception& error) {
    result.problem = error.what();
  }
  result.name = describe(layout, ranks);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace hadal::verify
