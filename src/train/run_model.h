// What one rank trains: the layout of the run, the groups it is a member of, and its share of the model.
#pragma once

#include "comm/single.h"
#include "config/config.h"
#include "model/distributed_model.h"
#include "optim/sharded_adamw.h"
#include "parallel/rank_groups.h"
#include "plan/layout.h"

namespace hadal::train {

class RunModel {
 public:
  /// Collective over `world`, which outlives this. UserError when the config cannot be laid out over its ranks.
  RunModel(const Config& config, const model::ModelOptions& options, comm::Communicator& world);

  const plan::Layout& layout() const { return layout_; }
  parallel::RankGroups& groups() { return groups_; }
  const parallel::Place& place() const { return groups_.place(); }
  model::DistributedModel& model() { return model_; }
  const model::ModelOptions& options() const { return model_.options(); }
  comm::Communicator& world() { return groups_.world(); }
  /// The pipeline of this rank: a group of one without pp.
  comm::Communicator& pipeline() { return groups_.pp() != nullptr ? *groups_.pp() : single_; }
  /// This rank speaks for what all ranks of a data-parallel place have alike: rows, counts of valid tokens.
  bool speaks_for_rows() const { return place().pp_rank == 0 && place().cp_rank == 0 && place().tp_rank == 0; }

 private:
  plan::Layout layout_;
  parallel::RankGroups groups_;
  comm::SingleCommunicator single_;
  model::DistributedModel model_;
};

/// The replica groups of its parameters, as the optimizer takes them.
std::vector<optim::ReplicaGroup> optimizer_groups(RunModel& run);
/// Every parameter, buffer and master at its initial value. Collective.
void initialize(RunModel& run, optim::ShardedAdamW& optimizer, Stream& stream, std::int64_t seed);

}  // namespace hadal::train
