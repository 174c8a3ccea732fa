#include "parallel/room_hop.h"

#include <algorithm>

#include "kernels/expert_room.h"
#include "kernels/rows.h"

namespace hadal::parallel {

RoomHop::RoomHop(Stream& stream, const RoomWay& way, std::int64_t room, ConstView experts, ConstView weights, View overflow)
    : group_(*way.group), counts_(static_cast<std::size_t>(way.group->size()), room), copies_(way.copies) {
  const std::int64_t rows = experts.shape[0], slots = experts.shape[1], sent = group_.size() * room;
  const std::int64_t slots_there = std::min(slots, way.num_experts / way.num_places());
  const Device device = experts.device;
  sent_row_ = Tensor::empty({sent}, DType::kI32, device);
  row_sends_ = Tensor::empty({rows, std::min(way.num_places(), slots) * copies_}, DType::kI32, device);
  pair_sends_ = Tensor::empty({rows * slots, copies_}, DType::kI32, device);
  for (RowSlots* of : {&slots_out_, &slots_in_}) {
    *of = {Tensor::empty({sent, slots_there}, DType::kI32, device), Tensor::empty({sent, slots_there}, weights.dtype, device)};
  }
  run(stream, kernels::ExpertSends{.num_experts = way.num_experts,
                                   .num_places = way.num_places(),
                                   .copies = copies_,
                                   .experts = experts,
                                   .weights = weights,
                                   .sent_row = sent_row_,
                                   .sent_experts = slots_out_.experts,
                                   .sent_weights = slots_out_.weights,
                                   .row_sends = row_sends_,
                                   .pair_sends = pair_sends_,
                                   .overflow = overflow});
  experts_handle_ = exchange(slots_out_.experts, slots_in_.experts);
  weights_handle_ = exchange(slots_out_.weights, slots_in_.weights);
}

comm::Handle RoomHop::exchange(const Tensor& out, Tensor& in) { return group_.start_all_to_all(out, counts_, in, counts_); }

RowSlots RoomHop::wait_slots() {
  experts_handle_.wait();
  weights_handle_.wait();
  slots_out_ = {};
  return std::move(slots_in_);
}

void RoomHop::start_rows(Stream& stream, ConstView x) {
  out_ = Tensor::empty({num_received(), x.shape[1]}, x.dtype, x.device);
  in_ = Tensor::empty(out_.shape(), x.dtype, x.device);
  run(stream, kernels::GatherRows{.x = x, .index = sent_row_, .y = out_});
  rows_handle_ = exchange(out_, in_);
}

Tensor RoomHop::finish_rows() {
  rows_handle_.wait();
  out_.reset();
  return std::move(in_);
}

void RoomHop::start_return(Stream&, Tensor rows, Tensor slot_scalars) {
  out_ = std::move(rows);
  in_ = Tensor::empty(out_.shape(), out_.dtype(), out_.device());
  rows_handle_ = exchange(out_, in_);
  scalars_out_ = std::move(slot_scalars);
  if (!scalars_out_.defined()) return;
  scalars_in_ = Tensor::empty(scalars_out_.shape(), scalars_out_.dtype(), scalars_out_.device());
  scalars_handle_ = exchange(scalars_out_, scalars_in_);
}

void RoomHop::finish_return(Stream& stream, ConstView base, View y, View pair_scalars) {
  rows_handle_.wait();
  run(stream, kernels::CombineRows{.x = in_, .index = row_sends_, .base = base, .y = y});
  out_.reset();
  in_.reset();
  if (!scalars_out_.defined()) return;
  scalars_handle_.wait();
  run(stream, kernels::CombineRows{.x = scalars_in_.view().reshape({scalars_in_.numel(), 1}),
                                   .index = pair_sends_,
                                   .base = {},
                                   .y = pair_scalars.reshape({pair_sends_.shape()[0], 1})});
  scalars_out_.reset();
  scalars_in_.reset();
}

}  // namespace hadal::parallel
