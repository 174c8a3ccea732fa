#include "train/step.h"

#include <algorithm>
#include <cmath>

#include "comm/position.h"
#include "train/micro_batch.h"

namespace hadal::train {
namespace {

/// Sums the counts of all data-parallel places in place.
void sum_counts(RunModel& run, ValidCounts& counts) {
  Tensor values = Tensor::zeros({static_cast<std::int64_t>(counts.mtp.size()) + 1}, DType::kI64);
  std::int64_t* v = values.as<std::int64_t>();
  if (run.speaks_for_rows()) {
    v[0] = counts.main;
    std::ranges::copy(counts.mtp, v + 1);
  }
  run.world().all_reduce_sum(values.view());
  counts.main = v[0];
  std::copy_n(v + 1, counts.mtp.size(), counts.mtp.begin());
}

}  // namespace

double LayerLoad::max_violation() const {
  std::int64_t total = 0;
  for (const std::int64_t count : counts) total += count;
  if (total == 0) return 0;
  const double mean = static_cast<double>(total) / static_cast<double>(counts.size());
  return static_cast<double>(*std::ranges::max_element(counts)) / mean - 1.0;
}

TrainStep::TrainStep(RunModel& run, optim::ShardedAdamW& optimizer) : run_(run), optimizer_(optimizer), pipeline_(run) {
  const ModelSection& shape = run.options().shape;
  for (std::int64_t i = 0; i < shape.num_layers + shape.mtp.depth; ++i) {
    if (model::is_moe_layer(shape, i)) loads_.push_back({i, std::vector<std::int64_t>(static_cast<std::size_t>(shape.moe.num_experts), 0)});
  }
}

StepResult TrainStep::gradients(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight) {
  optimizer_.wait_values();
  optimizer_.zero_grad();
  for (const model::Stage::PlacedMoe& moe : run_.model().moe_layers()) moe.layer->reset_statistics();
  LossScales scales{.valid = count_valid(rows, run_.options().shape.mtp.depth), .sequences = global_rows, .mtp_weight = mtp_weight};
  sum_counts(run_, scales.valid);
  std::vector<model::MicroBatch> micro_batches;
  for (std::int64_t begin = 0; begin < rows.num_rows(); begin += micro_batch) {
    const std::int64_t end = std::min(begin + micro_batch, rows.num_rows());
    micro_batches.push_back(make_micro_batch(rows, begin, end, scales, run_.options().dtype, run_.groups().layer_groups().context));
  }
  const model::Losses losses = pipeline_.train(stream, micro_batches, [&](const nn::ParameterList& parameters) {
    for (const nn::Parameter* parameter : parameters) {
      if (parameter->options().trainable) optimizer_.ready(*parameter);
    }
  });
  StepResult result;
  result.tokens = global_rows * rows.tokens.shape()[1];
  result.loss = losses.main;
  result.mtp_loss = losses.mtp;
  reduce(result);
  return result;
}

StepResult TrainStep::run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input) {
  StepResult result = gradients(stream, rows, global_rows, micro_batch, input.mtp_weight);
  const comm::Position position("optimizer");
  result.grad_norm = optimizer_.grad_norm(stream);
  result.applied = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  if (result.applied) {
    optimizer_.step(stream, input.lr, result.grad_norm);
    for (const model::Stage::PlacedMoe& moe : run_.model().moe_layers()) moe.layer->update_bias(input.bias_speed);
  }
  return result;
}

void TrainStep::reduce(StepResult& result) {
  const comm::Position position("gradient sum");
  optimizer_.finish();
  Tensor figures = Tensor::empty({static_cast<std::int64_t>(result.mtp_loss.size()) + 2}, DType::kF64);
  double* f = figures.as<double>();
  f[0] = result.loss;
  f[1] = 0;
  const std::int64_t num_experts = run_.options().shape.moe.num_experts;
  Tensor counts = Tensor::zeros({static_cast<std::int64_t>(loads_.size()), num_experts}, DType::kI64);
  const auto counts_of = [&](std::int64_t layer_idx) {
    const auto at = std::ranges::find(loads_, layer_idx, &LayerLoad::layer_idx) - loads_.begin();
    return counts.as<std::int64_t>() + at * num_experts;
  };
  for (const model::Stage::PlacedMoe& moe : run_.model().moe_layers()) {
    f[1] += *moe.layer->balance_loss().as<double>();
    std::int64_t* sum = counts_of(moe.layer_idx);
    const View counts_here = moe.layer->counts();
    for (const std::int64_t count : counts_here.span<std::int64_t>()) *sum++ += count;
  }
  std::ranges::copy(result.mtp_loss, f + 2);
  const View views[] = {figures.view(), counts.view()};
  run_.world().all_reduce_sum(views);
  result.loss = f[0];
  result.balance_loss = f[1];
  std::copy_n(f + 2, result.mtp_loss.size(), result.mtp_loss.begin());
  for (const model::Stage::PlacedMoe& moe : run_.model().moe_layers()) {
    std::copy_n(counts_of(moe.layer_idx), num_experts, moe.layer->counts().as<std::int64_t>());
  }
  double violation = 0;
  for (LayerLoad& load : loads_) {
    std::copy_n(counts_of(load.layer_idx), num_experts, load.counts.begin());
    violation += load.max_violation();
  }
  if (!loads_.empty()) result.max_violation = violation / static_cast<double>(loads_.size());
}

}  // namespace hadal::train
