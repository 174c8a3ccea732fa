// One hop of an expert dispatch into room of a fixed size (kernels/expert_room.h): an all-to-all of as many rows from each rank to each,
// whatever the router chose, so that neither the rows nor how many there are is asked by the host. The counterpart of RowHop.
//
// Shape legend: N rows with K slots here, R ranks with C rows of room each, B = R C received rows with S slots.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "core/stream.h"

namespace hadal::parallel {

/// Who lies behind the ranks of a group: equal shares of the experts, each on `copies` ranks in a row.
struct RoomWay {
  comm::Communicator* group = nullptr;
  std::int64_t num_experts = 0;
  std::int64_t copies = 1;

  std::int64_t num_places() const { return group->size() / copies; }
};

/// The experts a row came for, counted from the first of its place, -1 none, and the router's weights of them.
struct RowSlots {
  Tensor experts;  ///< I32 [B, S]
  Tensor weights;  ///< [B, S]
};

class RoomHop {
 public:
  /// Collective: the slots are under way when it returns. experts I32 [N, K] and weights [N, K] may go away. All ranks have the same C
  /// (`room`) and K. `overflow`: I64 [1].
  RoomHop(Stream& stream, const RoomWay& way, std::int64_t room, ConstView experts, ConstView weights, View overflow);

  RowSlots wait_slots();
  /// B.
  std::int64_t num_received() const { return sent_row_.numel(); }

  /// x [N, d] -> [B, d]: source by source; rows without slots are zero.
  void start_rows(Stream& stream, ConstView x);
  Tensor finish_rows();
  /// Back: rows [B, d]; slot_scalars [B, S] or undefined.
  void start_return(Stream& stream, Tensor rows, Tensor slot_scalars);
  /// y [N, d] = base + sum over the ranks a row went to, ascending; base [N, d] or empty, y may be base. pair_scalars [N, K], written where
  /// slot_scalars were given: summed over the copies.
  void finish_return(Stream& stream, ConstView base, View y, View pair_scalars);

 private:
  comm::Handle exchange(const Tensor& out, Tensor& in);

  comm::Communicator& group_;
  std::vector<std::int64_t> counts_;  // of each rank, either way: C
  std::int64_t copies_;
  Tensor sent_row_;    // I32 [B]
  Tensor row_sends_;   // I32 [N, ranks of a row at most]
  Tensor pair_sends_;  // I32 [N * K, copies]
  RowSlots slots_out_, slots_in_;
  Tensor out_, in_, scalars_out_, scalars_in_;  // buffers of the transfer under way
  comm::Handle experts_handle_, weights_handle_, rows_handle_, scalars_handle_;
};

}  // namespace hadal::parallel
