// The communicators of one rank's place in the grid, made once. Collective over the world: every rank makes its groups in one order.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "parallel/layer_groups.h"
#include "parallel/process_grid.h"

namespace hadal::parallel {

class RankGroups {
 public:
  /// `world` has grid.num_ranks() ranks and outlives this. `whole_seq`: S, for context parallelism.
  RankGroups(const ProcessGrid& grid, comm::Communicator& world, std::int64_t whole_seq, std::int64_t ranks_per_node,
             double expert_capacity = 0);
  ~RankGroups();

  const ProcessGrid& grid() const { return grid_; }
  const Place& place() const { return place_; }
  comm::Communicator& world() { return world_; }
  /// Pipeline ranks of this place; null for one.
  comm::Communicator* pp() { return pp_.get(); }
  /// Valid while this lives.
  LayerGroups layer_groups() const;

  /// Where a parameter's copies are: how it is replicated in a stage, and the pipeline ranks that hold the stage.
  using ReplicaKey = std::pair<std::vector<std::int64_t>, nn::Replication>;
  /// Communicators of these replica groups. Collective in the keys' order, so call it once, with all keys that any parameter of
  /// this rank has.
  std::map<ReplicaKey, std::unique_ptr<comm::Communicator>> replica_groups(const std::vector<ReplicaKey>& keys);

 private:
  std::unique_ptr<comm::Communicator> make(const std::vector<int>& ranks, const char* name);

  ProcessGrid grid_;
  comm::Communicator& world_;
  Place place_;
  std::int64_t ranks_per_node_;
  double expert_capacity_;
  std::unique_ptr<comm::Communicator> tp_, cp_, pp_, experts_, sequences_;
  std::unique_ptr<nn::SequenceShard> context_;
};

}  // namespace hadal::parallel
