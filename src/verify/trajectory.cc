#include "verify/trajectory.h"

#include "comm/local/local_group.h"
#include "comm/single.h"
#include "optim/lr_schedule.h"
#include "train/run_model.h"

namespace hadal::verify {
namespace {

constexpr float kNeverChosen = -1e3F;

/// Expert 0 of every layer stays empty.
void empty_an_expert(model::DistributedModel& model) {
  for (nn::Parameter* parameter : model.parameters()) {
    if (!parameter->options().trainable) parameter->value().as<float>()[0] = kNeverChosen;
  }
}

/// What the first rank of each replica group has of its parameters' gradients.
void collect_gradients(train::RunModel& run, optim::ShardedAdamW& optimizer, LogicalTensors& gradients) {
  for (const model::ReplicaGroup& group : run.model().replica_groups()) {
    for (const nn::Parameter* parameter : group.parameters) {
      Tensor whole = group.ranks->is_root() ? Tensor::empty(parameter->shape(), parameter->dtype()) : Tensor();
      optimizer.gather_state(optim::StateKind::kGradient, *parameter, 0, whole);
      if (group.ranks->is_root()) gradients.add(*parameter, whole);
    }
  }
}

void collect_parameters(train::RunModel& run, LogicalTensors& parameters) {
  for (const model::ReplicaGroup& group : run.model().replica_groups()) {
    if (!group.ranks->is_root()) continue;
    for (const nn::Parameter* parameter : group.parameters) parameters.add(*parameter, parameter->value());
  }
}

void run_rank(const Config& config, comm::Communicator& world, const data::Sampler& sampler, Trajectory& result) {
  train::RunModel run(config, model::model_options(config), world);
  run.model().initialize(static_cast<std::uint64_t>(config.run.seed));
  empty_an_expert(run.model());
  optim::ShardedAdamW optimizer(config.optim, train::optimizer_groups(run), world);
  train::TrainStep step(run, optimizer);
  Stream stream;
  const std::int64_t rows = config.train.global_batch;
  const data::RowRange share = data::rows_of_rank(rows, static_cast<int>(run.place().dp_rank), static_cast<int>(run.layout().grid.dp()));
  for (std::int64_t s = 0; s < config.train.steps; ++s) {
    const data::Batch batch = sampler.batch(static_cast<std::uint64_t>(s * rows + share.begin), share.end - share.begin);
    const train::StepInput input{.lr = optim::learning_rate(config.optim, s, config.train.steps),
                                 .mtp_weight = config.balance.mtp_weight,
                                 .bias_speed = config.balance.bias_update_speed};
    const train::StepResult figures = step.run(stream, batch, rows, config.train.micro_batch, input);
    if (s == 0) collect_gradients(run, optimizer, result.gradients);
    if (!world.is_root()) continue;
    result.steps.push_back(figures);
    if (s == 0) result.loads = step.loads();
  }
  optimizer.wait_values();
  collect_parameters(run, result.parameters);
}

}  // namespace

void run_trajectory(const Config& config, std::int64_t ranks, const data::Sampler& sampler, Trajectory& result) {
  if (ranks == 1) {
    comm::SingleCommunicator world;
    run_rank(config, world, sampler, result);
    return;
  }
  comm::run_local_group(static_cast<int>(ranks), [&](comm::Communicator& world) { run_rank(config, world, sampler, result); });
}

}  // namespace hadal::verify
