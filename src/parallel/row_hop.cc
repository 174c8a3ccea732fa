#include "parallel/row_hop.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/copy.h"
#include "kernels/rows.h"

namespace hadal::parallel {
namespace {

std::int64_t total_of(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::vector<std::int64_t> begins_of(const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> begins(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), begins.begin(), std::int64_t{0});
  return begins;
}

View bytes_of(std::vector<RowItem>& items) {
  return {items.data(), DType::kU8, {static_cast<std::int64_t>(items.size()), static_cast<std::int64_t>(sizeof(RowItem))}, kCpu};
}

}  // namespace

RowHop::RowHop(Stream& stream, comm::Communicator& group, std::int64_t num_rows, const std::vector<RowItem>& items,
               const std::function<int(std::int32_t)>& destination)
    : group_(group) {
  lay_out(stream, num_rows, items, destination);
  exchange_counts();
  items_.resize(static_cast<std::size_t>(total_of(recv_items_)));
  items_handle_ = group_.start_all_to_all(bytes_of(sent_items_), send_items_, bytes_of(items_), recv_items_);
}

/// Counts per destination, then the place of each row and item among those sent.
void RowHop::lay_out(Stream& stream, std::int64_t num_rows, const std::vector<RowItem>& items,
                     const std::function<int(std::int32_t)>& destination) {
  const auto num_ranks = static_cast<std::size_t>(group_.size());
  send_rows_.assign(num_ranks, 0);
  send_items_.assign(num_ranks, 0);
  std::vector<std::int32_t> last_row(num_ranks, -1);
  std::vector<std::int32_t> ranks_of_row(static_cast<std::size_t>(num_rows), 0);
  for (const RowItem& item : items) {
    const auto to = static_cast<std::size_t>(destination(item.member));
    ++send_items_[to];
    if (last_row[to] == item.row) continue;
    last_row[to] = item.row;
    ++send_rows_[to];
    ++ranks_of_row[static_cast<std::size_t>(item.row)];
  }
  const std::int64_t num_sent = total_of(send_rows_);
  HADAL_CHECK(std::max<std::int64_t>(num_sent, std::ssize(items)) <= std::numeric_limits<std::int32_t>::max(),
              "{} rows and {} items in one dispatch", num_sent, items.size());

  const std::int64_t most = num_rows == 0 ? 1 : std::max(1, *std::max_element(ranks_of_row.begin(), ranks_of_row.end()));
  sent_row_ = Tensor::empty({num_sent}, DType::kI32);
  row_sends_ = Tensor::empty({num_rows, most}, DType::kI32);
  item_position_ = Tensor::empty({std::ssize(items)}, DType::kI32);
  std::ranges::fill(row_sends_.span<std::int32_t>(), -1);
  std::ranges::fill(ranks_of_row, 0);
  std::ranges::fill(last_row, -1);
  sent_items_.resize(items.size());
  const std::vector<std::int64_t> row_begin = begins_of(send_rows_);
  std::vector<std::int64_t> next_row = row_begin, next_item = begins_of(send_items_);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const RowItem& item = items[i];
    const auto to = static_cast<std::size_t>(destination(item.member));
    if (last_row[to] != item.row) {
      last_row[to] = item.row;
      const auto sent = static_cast<std::int32_t>(next_row[to]++);
      sent_row_.as<std::int32_t>()[sent] = item.row;
      row_sends_.as<std::int32_t>()[item.row * most + ranks_of_row[static_cast<std::size_t>(item.row)]++] = sent;
    }
    const std::int64_t position = next_item[to]++;
    RowItem& travels = sent_items_[static_cast<std::size_t>(position)];
    travels = item;
    travels.row = static_cast<std::int32_t>(next_row[to] - 1 - row_begin[to]);
    item_position_.as<std::int32_t>()[i] = static_cast<std::int32_t>(position);
  }
  for (Tensor* index : {&sent_row_, &row_sends_, &item_position_}) *index = moved_to(stream, std::move(*index), stream.device());
}

void RowHop::exchange_counts() {
  const std::int64_t num_ranks = group_.size();
  Tensor out = Tensor::empty({num_ranks, 2}, DType::kI64), in = Tensor::empty({num_ranks, 2}, DType::kI64);
  for (std::size_t r = 0; r < send_rows_.size(); ++r) {
    out.as<std::int64_t>()[2 * r] = send_rows_[r];
    out.as<std::int64_t>()[2 * r + 1] = send_items_[r];
  }
  const std::vector<std::int64_t> ones(send_rows_.size(), 1);
  group_.all_to_all(out, ones, in, ones);
  for (std::size_t r = 0; r < send_rows_.size(); ++r) {
    recv_rows_.push_back(in.as<std::int64_t>()[2 * r]);
    recv_items_.push_back(in.as<std::int64_t>()[2 * r + 1]);
  }
  num_received_ = total_of(recv_rows_);
}

const std::vector<RowItem>& RowHop::wait_items() {
  if (!items_handle_.pending()) return items_;
  items_handle_.wait();
  const std::vector<std::int64_t> row_begin = begins_of(recv_rows_);
  std::size_t next = 0;
  for (std::size_t r = 0; r < recv_items_.size(); ++r) {
    for (std::int64_t n = 0; n < recv_items_[r]; ++n) items_[next++].row += static_cast<std::int32_t>(row_begin[r]);
  }
  return items_;
}

std::int64_t RowHop::num_sent_away() const { return total_of(send_rows_) - send_rows_[static_cast<std::size_t>(group_.rank())]; }

void RowHop::start_rows(Stream& stream, ConstView x) {
  out_ = Tensor::empty({sent_row_.numel(), x.shape[1]}, x.dtype, x.device);
  in_ = Tensor::empty({num_received_, x.shape[1]}, x.dtype, x.device);
  run(stream, kernels::GatherRows{.x = x, .index = sent_row_, .y = out_});
  rows_handle_ = group_.start_all_to_all(out_, send_rows_, in_, recv_rows_);
}

Tensor RowHop::finish_rows() {
  rows_handle_.wait();
  out_.reset();
  return std::move(in_);
}

void RowHop::start_return(Stream&, Tensor rows, Tensor item_scalars) {
  out_ = std::move(rows);
  in_ = Tensor::empty({sent_row_.numel(), out_.shape()[1]}, out_.dtype(), out_.device());
  rows_handle_ = group_.start_all_to_all(out_, recv_rows_, in_, send_rows_);
  scalars_out_ = std::move(item_scalars);
  if (!scalars_out_.defined()) return;
  scalars_in_ = Tensor::empty({item_position_.numel()}, scalars_out_.dtype(), scalars_out_.device());
  scalars_handle_ = group_.start_all_to_all(scalars_out_, recv_items_, scalars_in_, send_items_);
}

Tensor RowHop::finish_return(Stream& stream, ConstView base, View y) {
  rows_handle_.wait();
  run(stream, kernels::CombineRows{.x = in_, .index = row_sends_, .base = base, .y = y});
  out_.reset();
  in_.reset();
  if (!scalars_out_.defined()) return {};
  scalars_handle_.wait();
  const std::int64_t count = item_position_.numel();
  Tensor scalars = Tensor::empty({count}, scalars_in_.dtype(), scalars_in_.device());
  run(stream, kernels::GatherRows{
                  .x = scalars_in_.view().reshape({count, 1}), .index = item_position_, .y = scalars.view().reshape({count, 1})});
  scalars_out_.reset();
  scalars_in_.reset();
  return scalars;
}

}  // namespace hadal::parallel
