// Experts on the ranks of an expert group, as ExpertDispatch, planned on the device: room of a fixed size for the rows of each rank to
// each, and for those of the experts here, in multiples of what an even load needs. The host never waits for the choices of the router.
//
// Rows that find no room are counted. Nothing may come of a pass that has any: who trains asks the counter after the step, and where it is
// not zero on some rank makes more room on all and does the step again (train/step.h). With enough room, results are those of
// ExpertDispatch; over one hop bit by bit, over two the rows of an expert come in another order, by rail before node.
#pragma once

#include "parallel/expert_dispatch.h"
#include "parallel/room_hop.h"

namespace hadal::parallel {

class RoomDispatch final : public nn::ExpertExchange {
 public:
  /// Collective over `group`, which is kept. `capacity` >= 1: the room, in multiples of that of an even load. `device`: where rows lie.
  /// With two hops, of options.etp and options.ranks_per_node one divides the other.
  RoomDispatch(comm::Communicator& group, const ExpertDispatchOptions& options, double capacity, Device device);

  /// Every rank of the group brings the same number of tokens.
  std::unique_ptr<nn::ExpertRoute> route(Stream& stream, ConstView experts, ConstView weights) override;

  double capacity() const { return capacity_; }
  /// From the next route on; the same on every rank of the group. Doubled often enough, everything finds room.
  void set_capacity(double capacity);
  /// Rows that found no room are counted here from now on: I64 [1] on the device.
  void bind_overflow(View overflow) { overflow_ = overflow; }

 private:
  friend class RoomRoute;

  /// Rows of room to each rank of a hop: of `rows` that are there, from `sources` ranks of `tokens` each, those that have one of their
  /// `top_k` experts in an even share of all, 1 / `shares`.
  std::int64_t room(std::int64_t rows, std::int64_t sources, std::int64_t tokens, std::int64_t top_k, std::int64_t shares) const;

  std::int64_t num_experts_, size_, etp_, experts_here_;
  double capacity_ = 0;
  std::unique_ptr<comm::Communicator> rail_, node_;  // of two hops
  std::vector<RoomWay> ways_;                        // of each hop
  Tensor own_overflow_;
  View overflow_;
};

}  // namespace hadal::parallel
