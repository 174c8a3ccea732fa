#include "train/step.h"

#include <algorithm>
#include <cmath>

#include "comm/position.h"
#include "core/copy.h"
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
  const auto& layers = run.model().moe_layers();
  const std::int64_t num_layers = std::ssize(layers), num_experts = shape.moe.num_experts;
  counts_ = Tensor::zeros({num_layers, num_experts}, DType::kI64, run.options().device);
  balance_loss_ = Tensor::zeros({num_layers}, DType::kF64, run.options().device);
  for (std::int64_t i = 0; i < num_layers; ++i) {
    const View counts = counts_.view().rows(i, i + 1).reshape({num_experts});
    layers[static_cast<std::size_t>(i)].layer->bind_statistics(counts, balance_loss_.view().rows(i, i + 1));
  }
}

model::LossTable TrainStep::enqueue(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight) {
  const model::ModelOptions& options = run_.options();
  optimizer_.wait_values();
  optimizer_.zero_grad();
  counts_.fill_zero();
  balance_loss_.fill_zero();
  LossScales scales{.valid = count_valid(rows, options.shape.mtp.depth), .sequences = global_rows, .mtp_weight = mtp_weight};
  sum_counts(run_, scales.valid);
  std::vector<model::MicroBatch> micro_batches;
  for (std::int64_t begin = 0; begin < rows.num_rows(); begin += micro_batch) {
    const std::int64_t end = std::min(begin + micro_batch, rows.num_rows());
    micro_batches.push_back(
        upload(stream, make_micro_batch(rows, begin, end, scales, options.dtype, run_.groups().layer_groups().context), options.device));
  }
  model::LossTable losses = pipeline_.train(stream, micro_batches, [&](const nn::ParameterList& parameters) {
    for (const nn::Parameter* parameter : parameters) {
      if (parameter->options().trainable) optimizer_.ready(*parameter);
    }
  });
  const comm::Position position("gradient sum");
  optimizer_.finish();
  return losses;
}

StepResult TrainStep::gradients(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight) {
  const model::LossTable losses = enqueue(stream, rows, global_rows, micro_batch, mtp_weight);
  return read(stream, losses, global_rows * rows.tokens.shape()[1]);
}

StepResult TrainStep::run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input) {
  const model::LossTable losses = enqueue(stream, rows, global_rows, micro_batch, input.mtp_weight);
  const comm::Position position("optimizer");
  const ConstView norm_squared = optimizer_.grad_norm_squared(stream);
  optimizer_.step(stream, input.lr, norm_squared);
  StepResult result = read(stream, losses, global_rows * rows.tokens.shape()[1]);
  const Tensor norm = to_host(stream, norm_squared);
  result.grad_norm = std::sqrt(norm.span<double>()[0]);
  result.applied = std::isfinite(result.grad_norm);
  if (!result.applied) {
    optimizer_.undo_step();
    return result;
  }
  for (const model::Stage::PlacedMoe& moe : run_.model().moe_layers()) moe.layer->update_bias(stream, input.bias_speed);
  return result;
}

StepResult TrainStep::read(Stream& stream, const model::LossTable& table, std::int64_t tokens) {
  const comm::Position position("figures");
  const model::Losses losses = model::total(table.read(stream), run_.options().shape.mtp.depth);
  const Tensor counts_here = to_host(stream, counts_), balance_here = to_host(stream, balance_loss_);
  StepResult result;
  result.tokens = tokens;
  Tensor figures = Tensor::empty({std::ssize(losses.mtp) + 2}, DType::kF64);
  double* f = figures.as<double>();
  f[0] = losses.main;
  f[1] = 0;
  for (const double loss : balance_here.span<double>()) f[1] += loss;
  std::ranges::copy(losses.mtp, f + 2);
  const std::int64_t num_experts = counts_here.shape()[1];
  Tensor counts = Tensor::zeros({std::ssize(loads_), num_experts}, DType::kI64);
  const auto row_of = [&](Tensor& of, std::int64_t row) {
    return of.span<std::int64_t>().subspan(static_cast<std::size_t>(row * num_experts), static_cast<std::size_t>(num_experts));
  };
  const auto place_of = [&](std::int64_t layer_idx) { return std::ranges::find(loads_, layer_idx, &LayerLoad::layer_idx) - loads_.begin(); };
  const auto& layers = run_.model().moe_layers();
  Tensor whole = counts_here.clone();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto sum = row_of(counts, place_of(layers[i].layer_idx)), here = row_of(whole, static_cast<std::int64_t>(i));
    for (std::size_t e = 0; e < here.size(); ++e) sum[e] += here[e];
  }
  const View views[] = {figures.view(), counts.view()};
  run_.world().all_reduce_sum(views);
  result.loss = f[0];
  result.balance_loss = f[1];
  result.mtp_loss.assign(f + 2, f + figures.numel());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    std::ranges::copy(row_of(counts, place_of(layers[i].layer_idx)), row_of(whole, static_cast<std::int64_t>(i)).begin());
  }
  if (run_.world().size() > 1) copy(stream, whole, counts_);
  double violation = 0;
  for (std::size_t i = 0; i < loads_.size(); ++i) {
    std::ranges::copy(row_of(counts, static_cast<std::int64_t>(i)), loads_[i].counts.begin());
    violation += loads_[i].max_violation();
  }
  if (!loads_.empty()) result.max_violation = violation / static_cast<double>(loads_.size());
  return result;
}

}  // namespace hadal::train
