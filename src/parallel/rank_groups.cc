#include "parallel/rank_groups.h"

#include "parallel/context_parallel.h"


namespace hadal::parallel {

RankGroups::RankGroups(const ProcessGrid& grid, comm::Communicator& world, std::int64_t whole_seq, std::int64_t ranks_per_node,
                       double expert_capacity)
    : grid_(grid), world_(world), place_(grid.place(world.rank())), ranks_per_node_(ranks_per_node), expert_capacity_(expert_capacity) {
  HADAL_CHECK_EQ(static_cast<std::int64_t>(world.size()), grid.num_ranks());
  const int rank = world.rank();
  if (grid.tp() > 1) tp_ = make(grid.tp_group(rank), "tp");
  if (grid.cp() > 1) cp_ = make(grid.cp_group(rank), "cp");
  if (grid.cp() * grid.tp() > 1) sequences_ = make(grid.sequence_group(rank), "cp x tp");
  if (grid.ep() * grid.etp() > 1) experts_ = make(grid.expert_group(rank), "ep x etp");
  if (cp_) context_ = std::make_unique<ContextParallel>(*cp_, whole_seq);
  if (grid.pp() > 1) pp_ = make(grid.pp_group(rank), "pp");
}

RankGroups::~RankGroups() = default;

std::unique_ptr<comm::Communicator> RankGroups::make(const std::vector<int>& ranks, const char* name) { return world_.subgroup(ranks, name); }

LayerGroups RankGroups::layer_groups() const {
  return {.tp = tp_.get(),
          .experts = experts_.get(),
          .sequences = sequences_.get(),
          .context = context_.get(),
          .selection = nullptr,
          .dispatch = nullptr,
          .training_dispatch = nullptr,
          .expert = {place_.ep_rank, grid_.ep()},
          .expert_width = {place_.etp_rank, grid_.etp()},
          .ranks_per_node = ranks_per_node_,
          .expert_capacity = expert_capacity_};
}

std::map<RankGroups::ReplicaKey, std::unique_ptr<comm::Communicator>> RankGroups::replica_groups(const std::vector<ReplicaKey>& keys) {
  std::map<ReplicaKey, std::unique_ptr<comm::Communicator>> groups;
  for (const ReplicaKey& key : keys) groups[key] = nullptr;
  for (auto& [key, group] : groups) group = make(grid_.replica_group(world_.rank(), key.second, key.first), "replicas");
  return groups;
}

}  // namespace hadal::parallel
