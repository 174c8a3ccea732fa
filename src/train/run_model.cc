#include "train/run_model.h"

namespace hadal::train {

RunModel::RunModel(const Config& config, const model::ModelOptions& options, comm::Communicator& world)
    : layout_(plan::make_layout(config, world.size())),
      groups_(layout_.grid, world, config.data.sequence_length, config.parallel.ranks_per_node, config.parallel.expert_capacity),
      model_(options, layout_.stages, layout_.stage_placement(groups_.place().pp_rank), groups_) {}

std::vector<optim::ReplicaGroup> optimizer_groups(RunModel& run) {
  std::vector<optim::ReplicaGroup> groups;
  for (const model::ReplicaGroup& group : run.model().replica_groups()) groups.push_back({group.ranks, group.parameters});
  return groups;
}

void initialize(RunModel& run, optim::ShardedAdamW& optimizer, Stream& stream, std::int64_t seed) {
  for (nn::Parameter* parameter : run.model().parameters()) {
    if (!parameter->options().trainable) parameter->initialize(static_cast<std::uint64_t>(seed));
  }
  optimizer.initialize(stream, static_cast<std::uint64_t>(seed));
}

}  // namespace hadal::train
