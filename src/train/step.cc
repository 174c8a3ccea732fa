#include "train/step.h"

#include <algorithm>
#include <cmath>

#include "comm/position.h"
#include "train/micro_batch.h"

namespace hadal::train {
namespace {

/// Sums the counts of all ranks in place.
void sum_counts(comm::Communicator& world, ValidCounts& counts) {
  Tensor values = Tensor::empty({static_cast<std::int64_t>(counts.mtp.size()) + 1}, DType::kI64);
  std::int64_t* v = values.as<std::int64_t>();
  v[0] = counts.main;
  std::ranges::copy(counts.mtp, v + 1);
  world.all_reduce_sum(values.view());
  counts.main = v[0];
  std::copy_n(v + 1, counts.mtp.size(), counts.mtp.begin());
}

}  // namespace

TrainStep::TrainStep(model::Model& model, optim::ShardedAdamW& optimizer, comm::Communicator& world)
    : model_(model), optimizer_(optimizer), world_(world), moe_layers_(model.moe_layers()) {}

StepResult TrainStep::run(Stream& stream, const data::Batch& rows, std::int64_t global_rows, std::int64_t micro_batch, const StepInput& input) {
  optimizer_.wait_values();
  optimizer_.zero_grad();
  for (nn::MoeLayer* moe : moe_layers_) moe->reset_statistics();
  LossScales scales{.valid = count_valid(rows, model_.options().shape.mtp.depth), .sequences = global_rows, .mtp_weight = input.mtp_weight};
  sum_counts(world_, scales.valid);

  StepResult result;
  result.tokens = global_rows * rows.tokens.shape()[1];
  result.mtp_loss.assign(scales.valid.mtp.size(), 0.0);
  for (std::int64_t begin = 0; begin < rows.num_rows(); begin += micro_batch) {
    const std::int64_t end = std::min(begin + micro_batch, rows.num_rows());
    const comm::Position position("forward and backward", static_cast<int>(begin / micro_batch));
    const model::Losses losses = model_.forward_backward(stream, make_micro_batch(rows, begin, end, scales, model_.options().dtype));
    result.loss += losses.main;
    for (std::size_t k = 0; k < losses.mtp.size(); ++k) result.mtp_loss[k] += losses.mtp[k];
  }
  reduce(result);

  const comm::Position position("optimizer");
  result.grad_norm = optimizer_.grad_norm(stream);
  result.applied = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  double violation = 0;
  for (nn::MoeLayer* moe : moe_layers_) violation += moe->max_violation();
  if (!moe_layers_.empty()) result.max_violation = violation / static_cast<double>(moe_layers_.size());
  if (result.applied) {
    optimizer_.step(stream, input.lr, result.grad_norm);
    for (nn::MoeLayer* moe : moe_layers_) moe->update_bias(input.bias_speed);
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
  for (nn::MoeLayer* moe : moe_layers_) f[1] += *moe->balance_loss().as<double>();
  std::ranges::copy(result.mtp_loss, f + 2);
  std::vector<View> views{figures.view()};
  for (nn::MoeLayer* moe : moe_layers_) views.push_back(moe->counts());
  world_.all_reduce_sum(views);
  result.loss = f[0];
  result.balance_loss = f[1];
  std::copy_n(f + 2, result.mtp_loss.size(), result.mtp_loss.begin());
}

}  // namespace hadal::train
