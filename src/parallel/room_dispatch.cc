#include "parallel/room_dispatch.h"

#include <algorithm>
#include <cmath>

#include "kernels/expert_room.h"
#include "kernels/rows.h"
#include "parallel/strided_group.h"

namespace hadal::parallel {
namespace {

/// `mean` times the capacity, to whole eights.
std::int64_t with_room(double capacity, double mean, std::int64_t most) {
  const double rows = std::ceil(capacity * mean / 8) * 8;
  return rows < static_cast<double>(most) ? static_cast<std::int64_t>(rows) : most;
}

}  // namespace

/// One micro-batch's way: the hops, then a stable sort by expert.
class RoomRoute final : public nn::ExpertRoute {
 public:
  RoomRoute(Stream& stream, RoomDispatch& dispatch, ConstView experts, ConstView weights)
      : dispatch_(dispatch), num_tokens_(experts.shape[0]), top_k_(experts.shape[1]) {
    open_hop(stream, experts, weights);
  }

  ConstView offsets() const override { return offsets_; }
  ConstView row_weight() const override { return row_weight_; }

  void start_dispatch(Stream& stream, ConstView x) override { hops_.front()->start_rows(stream, x); }

  Tensor finish_dispatch(Stream& stream) override {
    if (!offsets_.defined()) arrive(stream);
    Tensor rows = hops_.front()->finish_rows();
    for (std::size_t h = 1; h < hops_.size(); ++h) {
      hops_[h]->start_rows(stream, rows);
      rows = hops_[h]->finish_rows();
    }
    Tensor sorted = Tensor::empty({row_weight_.numel(), rows.shape()[1]}, rows.dtype(), rows.device());
    run(stream, kernels::SpreadRows{.x = rows, .index = slot_row_, .y = sorted});
    return sorted;
  }

  void start_combine(Stream& stream, Tensor rows, Tensor row_scalars) override {
    const std::int64_t hidden_size = rows.shape()[1];
    const Storage storage(rows.dtype(), rows.device());
    Tensor scalars = row_scalars.defined() ? to_slots(stream, row_scalars) : Tensor{};
    Tensor sums = Tensor::empty({slot_row_.shape()[0], hidden_size}, storage);
    run(stream, kernels::CombineRows{.x = rows, .index = slot_row_, .base = {}, .y = sums});
    rows.reset();
    for (std::size_t h = hops_.size() - 1; h > 0; --h) {
      const bool with_scalars = scalars.defined();
      const Storage of_scalars = with_scalars ? Storage(scalars.dtype(), scalars.device()) : Storage{};
      hops_[h]->start_return(stream, std::move(sums), std::move(scalars));
      sums = Tensor::empty({hops_[h - 1]->num_received(), hidden_size}, storage);
      scalars = with_scalars ? Tensor::empty(slots_[h - 1], of_scalars) : Tensor{};
      hops_[h]->finish_return(stream, {}, sums, with_scalars ? scalars.view() : View{});
    }
    hops_.front()->start_return(stream, std::move(sums), std::move(scalars));
  }

  void finish_combine(Stream& stream, ConstView base, View y, View pair_scalars) override {
    hops_.front()->finish_return(stream, base, y, pair_scalars);
  }

 private:
  void open_hop(Stream& stream, ConstView experts, ConstView weights) {
    const RoomWay& way = dispatch_.ways_[hops_.size()];
    const std::int64_t size = way.group->size();
    // The last hop ends at the shares of one rank, the first of two at those of a node.
    const bool last = hops_.size() + 1 == dispatch_.ways_.size();
    const std::int64_t shares = last ? dispatch_.size_ / dispatch_.etp_ : way.num_places(), sources = hops_.empty() ? 1 : dispatch_.size_ / size;
    const std::int64_t room = dispatch_.room(experts.shape[0], sources, num_tokens_, top_k_, shares);
    hops_.push_back(std::make_unique<RoomHop>(stream, way, room, experts, weights, dispatch_.overflow_));
  }

  /// Opens the later hops as the slots come in; the first hop's rows travel meanwhile.
  void arrive(Stream& stream) {
    RowSlots slots = hops_.back()->wait_slots();
    while (hops_.size() < dispatch_.ways_.size()) {
      slots_.push_back(slots.experts.shape());
      open_hop(stream, slots.experts, slots.weights);
      slots = hops_.back()->wait_slots();
    }
    const Device device = slots.experts.device();
    const std::int64_t num_slots = slots.experts.numel();
    // Of R ranks, each token's experts are on etp.
    const auto mean = static_cast<double>(num_tokens_ * top_k_ * dispatch_.etp_);
    const std::int64_t rows = with_room(dispatch_.capacity_, mean, num_slots);
    offsets_ = Tensor::empty({dispatch_.experts_here_ + 1}, DType::kI64, device);
    slot_row_ = Tensor::empty(slots.experts.shape(), DType::kI32, device);
    row_weight_ = Tensor::empty({rows}, slots.weights.dtype(), device);
    run(stream, kernels::ExpertRows{.num_experts = dispatch_.experts_here_,
                                    .room = rows,
                                    .experts = slots.experts,
                                    .offsets = offsets_,
                                    .pair_row = slot_row_,
                                    .overflow = dispatch_.overflow_});
    run(stream, kernels::SpreadRows{.x = slots.weights.view().reshape({num_slots, 1}),
                                    .index = slot_row_.view().reshape({num_slots, 1}),
                                    .y = row_weight_.view().reshape({rows, 1})});
  }

  /// Scalars [M] of the sorted rows -> [B, S], 0 where a slot has no row.
  Tensor to_slots(Stream& stream, ConstView row_scalars) const {
    Tensor scalars = Tensor::empty(slot_row_.shape(), row_scalars.dtype, row_scalars.device);
    const std::int64_t count = scalars.numel();
    run(stream, kernels::GatherRows{.x = row_scalars.reshape({row_scalars.numel(), 1}),
                                    .index = slot_row_.view().reshape({count}),
                                    .y = scalars.view().reshape({count, 1})});
    return scalars;
  }

  RoomDispatch& dispatch_;
  std::int64_t num_tokens_, top_k_;
  std::vector<std::unique_ptr<RoomHop>> hops_;
  std::vector<Shape> slots_;  // [B, S] of each hop but the last
  Tensor offsets_;
  Tensor slot_row_;    // I32 [B, S] of the last hop: sorted rows, -1 none
  Tensor row_weight_;  // [M], unused rows hold anything
};

RoomDispatch::RoomDispatch(comm::Communicator& group, const ExpertDispatchOptions& options, double capacity, Device device)
    : num_experts_(options.num_experts), size_(group.size()), etp_(options.etp), own_overflow_(Tensor::zeros({1}, DType::kI64, device)),
      overflow_(own_overflow_) {
  HADAL_CHECK(etp_ >= 1 && size_ % etp_ == 0 && num_experts_ % (size_ / etp_) == 0, "{} experts on {} members, {} of them share a width",
              num_experts_, size_, etp_);
  experts_here_ = num_experts_ / (size_ / etp_);
  set_capacity(capacity);
  const int per_node = options.ranks_per_node;
  if (per_node == 0) {
    ways_.push_back({&group, num_experts_, etp_});
    return;
  }
  HADAL_CHECK(per_node >= 1 && size_ % per_node == 0 && (per_node % etp_ == 0 || etp_ % per_node == 0), "{} members in nodes of {}, {} share a width",
              size_, per_node, etp_);
  const int nodes = group.size() / per_node, node = group.rank() / per_node, place = group.rank() % per_node;
  node_ = strided_group(group, node * per_node, 1, per_node, "expert node");
  rail_ = strided_group(group, place, per_node, nodes, "expert rail");
  const std::int64_t nodes_of_expert = std::max<std::int64_t>(1, etp_ / per_node);
  ways_.push_back({rail_.get(), num_experts_, nodes_of_expert});
  ways_.push_back({node_.get(), num_experts_ / (nodes / nodes_of_expert), etp_ / nodes_of_expert});
}

void RoomDispatch::set_capacity(double capacity) {
  HADAL_CHECK(capacity >= 1 && capacity <= 1e9, "room for {} times the rows of an even load", capacity);
  capacity_ = capacity;
}

std::int64_t RoomDispatch::room(std::int64_t rows, std::int64_t sources, std::int64_t tokens, std::int64_t top_k, std::int64_t shares) const {
  // None of a token's distinct experts is in the share: of E - E / shares others, K are drawn.
  double none = 1;
  for (std::int64_t k = 0; k < top_k; ++k) {
    none *= static_cast<double>(std::max<std::int64_t>(num_experts_ - num_experts_ / shares - k, 0)) / static_cast<double>(num_experts_ - k);
  }
  return with_room(capacity_, static_cast<double>(sources * tokens) * (1 - none), rows);
}

std::unique_ptr<nn::ExpertRoute> RoomDispatch::route(Stream& stream, ConstView experts, ConstView weights) {
  return std::make_unique<RoomRoute>(stream, *this, experts, weights);
}

}  // namespace hadal::parallel
