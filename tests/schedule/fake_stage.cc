#include "tests/schedule/fake_stage.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>

#include "comm/local/local_group.h"
#include "core/error.h"
#include "schedule/peaks.h"

namespace hadal::schedule::test {
namespace {

Tensor to_tensor(const std::vector<double>& values) {
  Tensor tensor = Tensor::empty(Shape{static_cast<std::int64_t>(values.size())}, DType::kF64);
  std::ranges::copy(values, tensor.span<double>().begin());
  return tensor;
}

std::vector<double> to_vector(const Tensor& tensor) {
  const std::span<const double> values = tensor.span<double>();
  return {values.begin(), values.end()};
}

/// Weight gradients by (stage, slot) and losses by micro-batch, without ranks.
struct Reference {
  std::map<std::pair<int, int>, double> weights;
  std::map<int, double> losses;

  explicit Reference(const Plan& plan) {
    const Placement& placement = plan.placement;
    for (int k = 0; k < placement.num_micro_batches(); ++k) {
      std::vector<std::vector<double>> xs{input_of(k)};
      for (int stage = 0; stage < placement.num_stages(); ++stage) {
        xs.push_back(forward_of(stage, k, xs.back(), width_of(stage + 1, k)));
      }
      losses[k] = std::accumulate(xs.back().begin(), xs.back().end(), 0.0);
      if (plan.forward_only) continue;
      std::vector<double> gradient = loss_gradient(k, xs.back());
      for (int stage = placement.num_stages() - 1; stage >= 0; --stage) {
        const std::vector<double>& x = xs[static_cast<std::size_t>(stage)];
        double& sum = weights[{stage, placement.locate(stage, k).slot}];
        sum = add_weight(sum, x, gradient);
        gradient = backward_of(stage, x, gradient);
      }
    }
  }
};

}  // namespace

std::int64_t width_of(int stage, int micro_batch) { return 1 + (2 * stage + micro_batch) % 5; }

std::vector<double> input_of(int micro_batch) {
  std::vector<double> values(static_cast<std::size_t>(width_of(0, micro_batch)));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 1.0 + 0.37 * micro_batch + 0.011 * static_cast<double>(i);
  return values;
}

std::vector<double> forward_of(int stage, int micro_batch, const std::vector<double>& x, std::int64_t width) {
  std::vector<double> y(static_cast<std::size_t>(width));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = 0.7 * x[i % x.size()] + 0.01 * stage + 0.003 * micro_batch;
  return y;
}

std::vector<double> loss_gradient(int micro_batch, const std::vector<double>& y) {
  std::vector<double> d_y = y;
  for (double& value : d_y) value = 0.1 * value + 0.21 * micro_batch;
  return d_y;
}

std::vector<double> backward_of(int stage, const std::vector<double>& x, const std::vector<double>& d_y) {
  std::vector<double> d_x(x.size());
  for (std::size_t i = 0; i < d_x.size(); ++i) d_x[i] = 0.7 * d_y[i % d_y.size()] + 0.001 * stage * x[i];
  return d_x;
}

double add_weight(double sum, const std::vector<double>& x, const std::vector<double>& d_y) {
  for (std::size_t i = 0; i < x.size(); ++i) sum = 0.99 * sum + x[i] * d_y[i % d_y.size()];
  return sum;
}

FakeStages::FakeStages(const Plan& plan, int rank)
    : plan_(plan), rank_(rank), weights_(static_cast<std::size_t>(plan.placement.num_slots()), 0.0) {}

Boundary FakeStages::boundary(int slot, int micro_batch) {
  return {Shape{width_of(plan_.placement.stage_of(rank_, slot), micro_batch)}, DType::kF64, kCpu};
}

Tensor FakeStages::forward(int slot, int micro_batch, Tensor x) {
  const int stage = plan_.placement.stage_of(rank_, slot);
  HADAL_CHECK(x.defined() == (stage > 0), "stage {}", stage);
  Saved& saved = saved_[{slot, micro_batch}];
  HADAL_CHECK(saved.x.empty(), "F{} on stage {} twice", micro_batch, stage);
  saved.x = stage == 0 ? input_of(micro_batch) : to_vector(x);
  saved.y = forward_of(stage, micro_batch, saved.x, width_of(stage + 1, micro_batch));
  peak_ = std::max(peak_, static_cast<int>(saved_.size()));
  Tensor y;
  if (plan_.placement.is_last(stage)) {
    losses_[micro_batch] = std::accumulate(saved.y.begin(), saved.y.end(), 0.0);
  } else {
    y = to_tensor(saved.y);
  }
  if (plan_.forward_only) saved_.erase({slot, micro_batch});
  return y;
}

Tensor FakeStages::backward_input(int slot, int micro_batch, Tensor d_y) {
  const int stage = plan_.placement.stage_of(rank_, slot);
  HADAL_CHECK(d_y.defined() != plan_.placement.is_last(stage), "stage {}", stage);
  Saved& saved = saved_.at({slot, micro_batch});
  saved.d_y = d_y.defined() ? to_vector(d_y) : loss_gradient(micro_batch, saved.y);
  return stage == 0 ? Tensor() : to_tensor(backward_of(stage, saved.x, saved.d_y));
}

void FakeStages::backward_weight(int slot, int micro_batch) {
  const auto found = saved_.find({slot, micro_batch});
  HADAL_CHECK(found != saved_.end() && !found->second.d_y.empty(), "W{} of slot {} comes before I", micro_batch, slot);
  double& sum = weights_[static_cast<std::size_t>(slot)];
  sum = add_weight(sum, found->second.x, found->second.d_y);
  saved_.erase(found);
}

std::string run_and_compare(const Plan& plan, comm::Communicator& pipeline) {
  const Placement& placement = plan.placement;
  const Reference reference(plan);
  const int rank = pipeline.rank();
  FakeStages stages(plan, rank);
  const Execution execution = execute(plan, pipeline, stages);
  std::string text;
  for (int slot = 0; slot < placement.num_slots(); ++slot) {
    const int stage = placement.stage_of(rank, slot);
    const auto expected = reference.weights.find({stage, slot});
    const double weight = expected == reference.weights.end() ? 0 : expected->second;
    if (stages.weights()[static_cast<std::size_t>(slot)] != weight) text += fmt::format("weight gradient of stage {}; ", stage);
  }
  for (const auto& entry : stages.losses()) {
    if (entry.second != reference.losses.at(entry.first)) text += fmt::format("loss of micro-batch {}; ", entry.first);
  }
  if (stages.alive() != 0) text += fmt::format("{} micro-batches still saved; ", stages.alive());
  if (stages.peak() != peak_activations(plan)[static_cast<std::size_t>(rank)]) text += fmt::format("{} alive; ", stages.peak());
  if (execution.spans.size() != plan.ranks[static_cast<std::size_t>(rank)].size()) text += "spans; ";
  const auto all_losses = pipeline.all_reduce_sum(static_cast<std::int64_t>(stages.losses().size()));
  if (all_losses != placement.num_micro_batches()) text += fmt::format("{} losses; ", all_losses);
  return text;
}

std::string run_and_compare(const Plan& plan) {
  std::vector<std::string> wrong(plan.ranks.size());
  comm::run_local_group(plan.placement.num_ranks(), [&](comm::Communicator& pipeline) {
    wrong[static_cast<std::size_t>(pipeline.rank())] = run_and_compare(plan, pipeline);
  });
  std::string all;
  for (std::size_t rank = 0; rank < wrong.size(); ++rank) {
    if (!wrong[rank].empty()) all += fmt::format("rank {}: {}", rank, wrong[rank]);
  }
  return all;
}

}  // namespace hadal::schedule::test
