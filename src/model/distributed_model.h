// One rank's share of a model that is trained over a process grid: the pipeline stages it holds, and which ranks hold copies of each
// of their parameters.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/stage.h"
#include "parallel/rank_groups.h"
#include "parallel/room_dispatch.h"

namespace hadal::model {

/// Which pipeline ranks hold which stages (schedule/placement.h makes it).
struct StagePlacement {
  std::vector<std::int64_t> slots;                 ///< stages of this rank, by slot
  std::vector<std::vector<std::int64_t>> pp_ranks; ///< of every stage: who holds it, ascending
};

/// Parameters whose copies lie on the same ranks, in an order that all of those share.
struct ReplicaGroup {
  comm::Communicator* ranks = nullptr;
  nn::ParameterList parameters;
};

class DistributedModel {
 public:
  /// Collective over the world of `groups`, which outlives this. `layout`: all stages of the model.
  DistributedModel(const ModelOptions& options, const std::vector<StageContent>& layout, const StagePlacement& placement,
                   parallel::RankGroups& groups);

  const ModelOptions& options() const { return options_; }
  Stage& stage(int slot) { return *stages_[static_cast<std::size_t>(slot)]; }
  int num_slots() const { return static_cast<int>(stages_.size()); }
  /// Every parameter and buffer of this rank once, by stage.
  const nn::ParameterList& parameters() const { return parameters_; }
  /// The same, trainable ones, by replica group.
  const std::vector<ReplicaGroup>& replica_groups() const { return replica_groups_; }
  /// Buffers (balancing biases) that this rank is the one to save: one copy of each is enough.
  const nn::ParameterList& owned_buffers() const { return owned_buffers_; }
  /// MoE layers of this rank by place in the model. Ranks that hold copies of a layer (DualPipe) each count their own tokens.
  const std::vector<Stage::PlacedMoe>& moe_layers() const { return moe_layers_; }
  /// The dispatch of training where it has a bounded room (parallel.expert_capacity); else null.
  parallel::RoomDispatch* room_dispatch() { return room_dispatch_.get(); }
  void initialize(std::uint64_t seed);
  void hold_selection(bool hold);

 private:
  ModelOptions options_;
  SharedTables tables_;
  std::shared_ptr<parallel::RoomDispatch> room_dispatch_;
  std::vector<std::unique_ptr<Stage>> stages_;
  nn::ParameterList parameters_;
  std::map<parallel::RankGroups::ReplicaKey, std::unique_ptr<comm::Communicator>> communicators_;
  std::vector<ReplicaGroup> replica_groups_;
  nn::ParameterList owned_buffers_;
  std::vector<Stage::PlacedMoe> moe_layers_;
};

}  // namespace hadal::model
