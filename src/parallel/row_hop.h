// One hop of an expert dispatch (spec/parallelism.md 3): an all-to-all of rows, each sent once to a rank however many of its
// experts are found there or behind it, with the list of these experts. The way back sums what returns for a row, ranks
// ascending.
//
// Shape legend: N rows and P items here, N' rows and P' items received.
#pragma once

#include <functional>
#include <vector>

#include "comm/communicator.h"
#include "core/stream.h"

namespace hadal::parallel {

/// A row on its way to one expert; as it travels.
struct RowItem {
  std::int32_t row = 0;     ///< of the rows that lie at the present place
  std::int32_t member = 0;  ///< of the expert group, where the expert lies
  std::int32_t expert = 0;  ///< its number there
  std::int32_t origin = 0;  ///< member of the expert group that the row comes from
  double weight = 0;
};
static_assert(sizeof(RowItem) == 24, "travels as bytes without padding");

class RowHop {
 public:
  /// Collective over `group`. `items` are sorted by row and, within a row, by `destination(member)`, a rank of `group`. Counts
  /// are exchanged; the items are under way when it returns. Rows travel on the stream's device, items and counts on the host.
  RowHop(Stream& stream, comm::Communicator& group, std::int64_t num_rows, const std::vector<RowItem>& items,
         const std::function<int(std::int32_t member)>& destination);

  /// P' items, sorted by the row they name among the received ones: by source, then in the source's order.
  const std::vector<RowItem>& wait_items();
  std::int64_t num_received() const { return num_received_; }
  /// Rows that leave this rank on each dispatch.
  std::int64_t num_sent_away() const;

  /// x [N, d] -> [N', d].
  void start_rows(Stream& stream, ConstView x);
  Tensor finish_rows();
  /// Back: rows [N', d]; item_scalars [P'] or undefined.
  void start_return(Stream& stream, Tensor rows, Tensor item_scalars);
  /// y [N, d] = base + sum over the ranks a row went to; base [N, d] or empty, y may be base. Returns the items' scalars [P],
  /// undefined where none were sent.
  Tensor finish_return(Stream& stream, ConstView base, View y);

 private:
  void lay_out(Stream& stream, std::int64_t num_rows, const std::vector<RowItem>& items, const std::function<int(std::int32_t)>& destination);
  void exchange_counts();

  comm::Communicator& group_;
  std::vector<std::int64_t> send_rows_, send_items_, recv_rows_, recv_items_;  // by rank
  std::int64_t num_received_ = 0;
  Tensor sent_row_;       // I32 [rows sent]: which row each is
  Tensor row_sends_;      // I32 [N, most ranks of a row]: sent rows, -1 where there are no more
  Tensor item_position_;  // I32 [P]: place among the sent items
  std::vector<RowItem> sent_items_, items_;
  Tensor out_, in_, scalars_out_, scalars_in_;  // buffers of the transfer under way
  comm::Handle items_handle_, rows_handle_, scalars_handle_;
};

}  // namespace hadal::parallel
