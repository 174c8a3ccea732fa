#include "train/step.h"

#include <algorithm>
#include <cmath>

#include "comm/position.h"
#include "core/copy.h"
#include "core/log.h"
#include "kernels/expert_room.h"
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

TrainStep::TrainStep(RunModel& run, optim::ShardedAdamW& optimizer, bool recorded)
    : run_(run), optimizer_(optimizer), recorded_(recorded), pipeline_(run) {
  const ModelSection& shape = run.options().shape;
  for (std::int64_t i = 0; i < shape.num_layers + shape.mtp.depth; ++i) {
    if (model::is_moe_layer(shape, i)) loads_.push_back({i, std::vector<std::int64_t>(static_cast<std::size_t>(shape.moe.num_experts), 0)});
  }
  const auto& layers = run.model().moe_layers();
  const std::int64_t num_experts = shape.moe.num_experts;
  const std::int64_t num_counts = std::ssize(loads_) * num_experts;
  counts_ = Tensor::zeros({num_counts + 1}, DType::kI64, run.options().device);
  balance_loss_ = Tensor::zeros({std::ssize(layers)}, DType::kF64, run.options().device);
  const View counts = counts_.view().rows(0, num_counts).reshape({std::ssize(loads_), num_experts});
  for (std::int64_t i = 0; i < std::ssize(layers); ++i) {
    const model::Stage::PlacedMoe& moe = layers[static_cast<std::size_t>(i)];
    const std::int64_t place = std::ranges::find(loads_, moe.layer_idx, &LayerLoad::layer_idx) - loads_.begin();
    moe.layer->bind_statistics(counts.rows(place, place + 1).reshape({num_experts}), balance_loss_.view().rows(i, i + 1));
  }
  if (parallel::RoomDispatch* const room = run.model().room_dispatch()) {
    room->bind_overflow(counts_.view().rows(num_counts, num_counts + 1));
    judged_norm_ = Tensor::empty({1}, DType::kF64, run.options().device);
  }
}

void TrainStep::prepare(Stream& stream, const data::Batch& rows, const Shape& shape) {
  const model::ModelOptions& options = run_.options();
  LossScales scales{.valid = count_valid(rows, options.shape.mtp.depth), .sequences = shape.global_rows, .mtp_weight = shape.mtp_weight};
  sum_counts(run_, scales.valid);
  const bool again = shape_ == shape;
  if (!again) micro_batches_.clear();
  shape_ = shape;
  for (std::int64_t begin = 0, i = 0; begin < shape.rows; begin += shape.micro_batch, ++i) {
    const std::int64_t end = std::min(begin + shape.micro_batch, shape.rows);
    model::MicroBatch made = make_micro_batch(rows, begin, end, scales, options.dtype, run_.groups().layer_groups().context);
    if (again) {
      write_over(stream, made, micro_batches_[static_cast<std::size_t>(i)]);
    } else {
      micro_batches_.push_back(upload(stream, std::move(made), options.device));
    }
  }
  optimizer_.wait_values();
}

void TrainStep::enqueue_gradients(Stream& stream) {
  optimizer_.zero_grad();
  counts_.fill_zero();
  balance_loss_.fill_zero();
  losses_ = pipeline_.train(stream, micro_batches_, [&](const nn::ParameterList& parameters) {
    for (const nn::Parameter* parameter : parameters) {
      if (parameter->options().trainable) optimizer_.ready(*parameter);
    }
  });
  {
    const comm::Position position("gradient sum");
    optimizer_.finish();
  }
  const comm::Position position("expert loads");
  if (!loads_.empty()) run_.world().all_reduce_sum(counts_.view());
}

void TrainStep::enqueue_update(Stream& stream, double bias_speed) {
  const comm::Position position("optimizer");
  norm_squared_ = optimizer_.grad_norm_squared(stream);
  if (judged_norm_.defined()) {
    const std::int64_t last = counts_.numel() - 1;
    kernels::run(stream, kernels::RefuseOverflow{.overflow = counts_.view().rows(last, last + 1), .x = norm_squared_, .y = judged_norm_});
    norm_squared_ = judged_norm_;
  }
  optimizer_.step(stream, norm_squared_);
  for (const model::Stage::PlacedMoe& moe : run_.model().moe_layers()) moe.layer->update_bias(stream, bias_speed, norm_squared_);
}

StepResult TrainStep::gradients(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, double mtp_weight) {
  const std::int64_t seq = rows.tokens.shape()[1];
  prepare(stream, rows, {rows.num_rows(), seq, global_rows, micro_batch, mtp_weight, 0});
  StepResult result;
  do {
    enqueue_gradients(stream);
    result = read(stream, global_rows * seq);
  } while (has_made_room());
  return result;
}

StepResult TrainStep::run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input) {
  const std::int64_t seq = rows.tokens.shape()[1];
  const Shape shape{rows.num_rows(), seq, global_rows, micro_batch, input.mtp_weight, input.bias_speed};
  prepare(stream, rows, shape);
  const auto work = [&] {
    enqueue_gradients(stream);
    enqueue_update(stream, shape.bias_speed);
  };
  StepResult result;
  do {
    optimizer_.begin_step(stream, input.lr);
    if (recorded_) {
      work_.run(stream, shape, work);
    } else {
      work();
    }
    result = read(stream, global_rows * seq);
    const Tensor norm = to_host(stream, norm_squared_);
    result.grad_norm = std::sqrt(norm.span<double>()[0]);
    result.applied = std::isfinite(result.grad_norm);
    if (!result.applied) optimizer_.undo_step();
  } while (has_made_room());
  return result;
}

StepResult TrainStep::read(Stream& stream, std::int64_t tokens) {
  const comm::Position position("figures");
  const model::Losses losses = model::total(losses_->read(stream), run_.options().shape.mtp.depth);
  const Tensor counts = to_host(stream, counts_), balance_here = to_host(stream, balance_loss_);
  StepResult result;
  result.tokens = tokens;
  Tensor figures = Tensor::empty({std::ssize(losses.mtp) + 2}, DType::kF64);
  double* f = figures.as<double>();
  f[0] = losses.main;
  f[1] = 0;
  for (const double loss : balance_here.span<double>()) f[1] += loss;
  std::ranges::copy(losses.mtp, f + 2);
  run_.world().all_reduce_sum(figures.view());
  result.loss = f[0];
  result.balance_loss = f[1];
  result.mtp_loss.assign(f + 2, f + figures.numel());
  double violation = 0;
  for (std::size_t i = 0; i < loads_.size(); ++i) {
    std::vector<std::int64_t>& of_layer = loads_[i].counts;
    std::ranges::copy(counts.span<std::int64_t>().subspan(i * of_layer.size(), of_layer.size()), of_layer.begin());
    violation += loads_[i].max_violation();
  }
  if (!loads_.empty()) result.max_violation = violation / static_cast<double>(loads_.size());
  overflow_ = counts.span<std::int64_t>().back();
  return result;
}

bool TrainStep::has_made_room() {
  if (overflow_ == 0) return false;
  parallel::RoomDispatch& room = *run_.model().room_dispatch();
  room.set_capacity(2 * room.capacity());
  if (run_.world().is_root()) {
    log_info("{} rows on their way to experts found no room (parallel.expert_capacity): the step is done again with room for {:g} times an even load",
             overflow_, room.capacity());
  }
  optimizer_.wait_values();
  return true;
}

}  // namespace hadal::train
