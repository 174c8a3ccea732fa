#include "verify/trajectory.h"

#include "comm/local/local_group.h"
#include "comm/single.h"
#include "core/copy.h"
#include "optim/lr_schedule.h"
#include "train/run_device.h"

namespace hadal::verify {
namespace {

constexpr float kNeverChosen = -1e3F;

/// Expert 0 of every layer stays empty.
void empty_an_expert(model::DistributedModel& model) {
  for (nn::Parameter* parameter : model.parameters()) {
    if (parameter->options().trainable) continue;
    Stream stream = stream_of(parameter->device());
    Tensor never = Tensor::empty({1}, DType::kF32);
    never.as<float>()[0] = kNeverChosen;
    copy(stream, never, parameter->value().rows(0, 1));
  }
}

}  // namespace

RankRun::RankRun(const Config& config, comm::Communicator& world, const data::Sampler& sampler)
    : config_(config),
      world_(world),
      sampler_(sampler),
      run_(config, model::model_options(config, train::run_device(config, world)), world),
      optimizer_(config.optim, train::optimizer_groups(run_), world),
      step_(run_, optimizer_) {
  Stream stream = stream_of(run_.options().device);
  train::initialize(run_, optimizer_, stream, config.run.seed);
  empty_an_expert(run_.model());
}

/// What the first rank of each replica group has of its parameters' gradients.
void RankRun::collect_gradients(LogicalTensors& gradients) {
  for (const model::ReplicaGroup& group : run_.model().replica_groups()) {
    for (const nn::Parameter* parameter : group.parameters) {
      Tensor whole = group.ranks->is_root() ? Tensor::empty(parameter->shape(), parameter->accumulation()) : Tensor();
      optimizer_.gather_state(optim::StateKind::kGradient, *parameter, 0, whole);
      if (group.ranks->is_root()) gradients.add(*parameter, whole);
    }
  }
}

void RankRun::run(Trajectory& result) {
  Stream stream = stream_of(run_.options().device);
  const std::int64_t rows = config_.train.global_batch;
  const data::RowRange share = data::rows_of_rank(rows, static_cast<int>(run_.place().dp_rank), static_cast<int>(run_.layout().grid.dp()));
  for (std::int64_t s = 0; s < config_.train.steps; ++s) {
    const data::Batch batch = sampler_.batch(static_cast<std::uint64_t>(s * rows + share.begin), share.end - share.begin);
    const train::StepInput input{.lr = optim::learning_rate(config_.optim, s, config_.train.steps),
                                 .mtp_weight = config_.balance.mtp_weight,
                                 .bias_speed = config_.balance.bias_update_speed};
    const train::StepResult figures = step_.run(stream, batch, rows, config_.train.micro_batch, input);
    if (s == 0) collect_gradients(result.gradients);
    if (!world_.is_root()) continue;
    result.steps.push_back(figures);
    if (s == 0) result.loads = step_.loads();
  }
  optimizer_.wait_values();
  for (const nn::Parameter* parameter : run_.model().parameters()) result.parameters.add(*parameter, parameter->value());
}

void run_trajectory(const Config& config, std::int64_t ranks, const data::Sampler& sampler, Trajectory& result) {
  if (ranks == 1) {
    comm::SingleCommunicator world;
    RankRun(config, world, sampler).run(result);
    return;
  }
  comm::run_local_group(static_cast<int>(ranks), [&](comm::Communicator& world) { RankRun(config, world, sampler).run(result); });
}

}  // namespace hadal::verify
