#include "comm/communicator.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "comm/host_staged.h"
#include "core/copy.h"
#include "core/dtype.h"
#include "core/error.h"

namespace hadal::comm {
namespace {

/// Tensors at least this large are summed where they lie; smaller ones are packed until this many bytes are together.
constexpr std::size_t kPackedBytes = std::size_t{1} << 20;

void check_one_device(const ConstView& a, const ConstView& b) {
  HADAL_CHECK(a.device == b.device, "one call on memory of {} and {}", name_of(a.device), name_of(b.device));
}

void check_summable(const ConstView& values) {
  HADAL_CHECK(values.dtype == DType::kF64 || values.dtype == DType::kF32 || values.dtype == DType::kI64, "sum over ranks of {}",
              name_of(values.dtype));
}

std::span<const std::byte> bytes_of(const ConstView& values) {
  return {static_cast<const std::byte*>(values.data), values.bytes()};
}

std::byte* data_of(const View& values) { return static_cast<std::byte*>(values.data); }

/// In a group of one. The two are the same memory or do not overlap.
void move(ConstView from, View to) {
  if (to.data == from.data) return;
  Stream stream = stream_of(to.device);
  copy(stream, from.reshape(to.shape), to);
}

/// Bytes of each rank's rows.
std::vector<std::size_t> bytes_of_rows(const ConstView& values, std::span<const std::int64_t> rows, int size) {
  HADAL_CHECK(values.shape.rank() >= 1, "rows of a scalar");
  HADAL_CHECK(static_cast<int>(rows.size()) == size, "row counts of {} ranks in a group of {}", rows.size(), size);
  std::size_t row_bytes = size_of(values.dtype);
  for (int dim = 1; dim < values.shape.rank(); ++dim) row_bytes *= static_cast<std::size_t>(values.shape[dim]);
  std::vector<std::size_t> bytes;
  std::int64_t total = 0;
  for (const std::int64_t count : rows) {
    HADAL_CHECK(count >= 0, "{} rows", count);
    total += count;
    bytes.push_back(static_cast<std::size_t>(count) * row_bytes);
  }
  HADAL_CHECK(total <= values.shape[0], "{} rows of all ranks in a view of {}", total, values.shape.str());
  return bytes;
}

std::shared_ptr<Ledger> ledger_of(int rank, const Group& group) {
  const auto size = static_cast<int>(group.world_ranks.size());
  return size > 1 ? std::make_shared<Ledger>(rank, size) : nullptr;
}

}  // namespace

Communicator::Communicator(int rank, const Group& group, std::unique_ptr<Transport> transport)
    : Communicator(ledger_of(rank, group), rank, group) {
  transport_ = std::move(transport);
  HADAL_CHECK(alone() || transport_ != nullptr, "{} ranks and nothing that joins them", size());
}

Communicator::Communicator(std::shared_ptr<Ledger> ledger, int rank, Group group)
    : rank_(rank), group_(std::move(group)), ledger_(std::move(ledger)) {
  HADAL_CHECK(size() >= 1 && rank >= 0 && rank < size(), "rank {} of {}", rank, size());
  if (!alone()) ledger_slot_ = ledger_->add_group(group_);
}

Communicator::~Communicator() {
  if (!alone()) ledger_->remove_group(ledger_slot_);
}

std::unique_ptr<Communicator> Communicator::subgroup(std::span<const int> members, std::string name) {
  int& occurrence = occurrences_[std::vector<int>(members.begin(), members.end())];
  Group group = group_of_members(group_, members, std::move(name), occurrence);
  ++occurrence;
  const auto place = std::ranges::find(members, rank_);
  HADAL_CHECK(place != members.end(), "rank {} asks for a group \"{}\" that it does not belong to", rank_, group.name);
  std::unique_ptr<Communicator> made(new Communicator(ledger_, static_cast<int>(place - members.begin()), std::move(group)));
  if (!made->alone()) {
    const LedgerCall call = made->record_wait(Op::kSubgroup, 0);
    made->transport_ = transport_->subgroup(made->group_, members, made->rank_);
    if (device_transport_) made->device_transport_ = device_transport_->subgroup(*made->transport_, made->group_, made->rank_);
  }
  return made;
}

std::string Communicator::description() const {
  if (!transport_) return "single";
  return transport_->description() + (device_transport_ ? "; device memory by " + device_transport_->description() : "");
}

void Communicator::use_device(Device device, DeviceTransportKind kind) {
  if (alone() || used_device_ == std::pair(device, kind)) return;
  const LedgerCall call = record_wait(Op::kSubgroup, 0);
  used_device_ = {device, kind};
  channels_open_ = false;
  device_transport_ = make_device_transport(*transport_, group_, rank_, device, kind);
}

void Communicator::open_channels() {
  if (alone() || !device_transport_ || channels_open_) return;
  const LedgerCall call = record_wait(Op::kSubgroup, 0);
  device_transport_->open_channels();
  channels_open_ = true;
}

DeviceTransport& Communicator::device_transport() {
  if (!device_transport_) device_transport_ = std::make_unique<HostStaged>(*transport_);
  return *device_transport_;
}

LedgerCall Communicator::record(Op op, std::size_t bytes) const {
  return {*ledger_, ledger_->begin(group_, ledger_slot_, op, static_cast<std::int64_t>(bytes))};
}

LedgerCall Communicator::record_message(Op op, std::size_t bytes, int peer, int tag) {
  const std::uint64_t sequence = ++messages_[{op, peer, tag}];
  return {*ledger_, ledger_->begin(group_, ledger_slot_, op, static_cast<std::int64_t>(bytes), peer, tag, sequence)};
}

LedgerCall Communicator::record_wait(Op op, std::size_t bytes) const {
  LedgerCall call = record(op, bytes);
  call.wait();
  return call;
}

void Communicator::sum_in_place(View values) {
  const LedgerCall call = record_wait(Op::kAllReduce, values.bytes());
  if (values.device.is_cpu()) {
    transport_->all_reduce_sum(data_of(values), values.dtype, values.numel());
  } else {
    device_transport().begin_all_reduce_sum(values)->wait();
  }
}

void Communicator::all_reduce_sum(View values) {
  check_summable(values);
  if (!alone() && !values.empty()) sum_in_place(values);
}

void Communicator::sum_packed(std::span<const View> values, std::size_t bytes) {
  const DType dtype = values.front().dtype;
  const Device device = values.front().device;
  if (!packed_.defined() || packed_.device() != device || packed_.bytes() < bytes) {
    packed_ = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kU8, device);
  }
  Stream stream = stream_of(device);
  const auto part = [&](std::size_t at, const Shape& shape) { return View{data_of(packed_.view()) + at, dtype, shape, device}; };
  std::size_t at = 0;
  for (const View& view : values) {
    copy(stream, view, part(at, view.shape));
    at += view.bytes();
  }
  sum_in_place(part(0, Shape{static_cast<std::int64_t>(bytes / size_of(dtype))}));
  at = 0;
  for (const View& view : values) {
    copy(stream, part(at, view.shape), view);
    at += view.bytes();
  }
}

void Communicator::all_reduce_sum(std::span<const View> values) {
  if (alone()) return;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kI64}) {
    std::vector<View> small;
    std::size_t small_bytes = 0;
    const auto flush = [&] {
      if (!small.empty()) sum_packed(small, small_bytes);
      small.clear();
      small_bytes = 0;
    };
    for (const View& view : values) {
      check_summable(view);
      check_one_device(view, values.front());
      if (view.dtype != dtype || view.empty()) continue;
      if (view.bytes() >= kPackedBytes) {
        sum_in_place(view);
        continue;
      }
      if (small_bytes + view.bytes() > kPackedBytes) flush();
      small.push_back(view);
      small_bytes += view.bytes();
    }
    flush();
  }
}

double Communicator::all_reduce_sum(double value) {
  all_reduce_sum(View{&value, DType::kF64, Shape{1}, kCpu});
  return value;
}

std::int64_t Communicator::all_reduce_sum(std::int64_t value) {
  all_reduce_sum(View{&value, DType::kI64, Shape{1}, kCpu});
  return value;
}

std::int64_t Communicator::all_reduce_max(std::int64_t value) {
  if (alone()) return value;
  const LedgerCall call = record_wait(Op::kAllReduceMax, sizeof value);
  return transport_->all_reduce_max(value);
}

void Communicator::broadcast(std::span<std::byte> bytes, int root) {
  check_root(root);
  if (alone()) return;
  const LedgerCall call = record_wait(Op::kBroadcast, bytes.size());
  transport_->broadcast(bytes, root);
}

void Communicator::broadcast(View values, int root) {
  if (values.device.is_cpu()) {
    broadcast(std::span(data_of(values), values.bytes()), root);
    return;
  }
  check_root(root);
  if (alone() || values.empty()) return;
  const LedgerCall call = record_wait(Op::kBroadcast, values.bytes());
  device_transport().broadcast(values, root);
}

void Communicator::broadcast(std::string& text, int root) {
  std::uint64_t bytes = text.size();
  broadcast(std::as_writable_bytes(std::span(&bytes, 1)), root);
  text.resize(bytes);
  broadcast(std::as_writable_bytes(std::span(text.data(), text.size())), root);
}

void Communicator::barrier() {
  if (alone()) return;
  const LedgerCall call = record_wait(Op::kBarrier, 0);
  transport_->barrier();
}

std::vector<std::string> Communicator::all_gather(std::string_view bytes) {
  if (alone()) return {std::string(bytes)};
  const LedgerCall call = record_wait(Op::kAllGatherBytes, bytes.size());
  return transport_->all_gather(bytes);
}

Handle Communicator::start_all_gather(ConstView mine, View all) {
  check_one_device(mine, all);
  HADAL_CHECK(all.dtype == mine.dtype && all.numel() == mine.numel() * size(), "{} ranks gather {} x {} each into {} x {}",
              size(), mine.numel(), name_of(mine.dtype), all.numel(), name_of(all.dtype));
  if (mine.empty()) return {};
  if (alone()) {
    move(mine, all);
    return {};
  }
  LedgerCall call = record(Op::kAllGather, all.bytes());
  if (!all.device.is_cpu()) return {device_transport().begin_all_gather(mine, all), std::move(call)};
  return {transport_->begin_all_gather(bytes_of(mine), data_of(all)), std::move(call)};
}

Handle Communicator::start_reduce_scatter_sum(ConstView all, View mine) {
  check_summable(all);
  check_one_device(all, mine);
  HADAL_CHECK(all.dtype == mine.dtype && all.numel() == mine.numel() * size(), "{} ranks share {} x {}, {} x {} each", size(),
              all.numel(), name_of(all.dtype), mine.numel(), name_of(mine.dtype));
  if (mine.empty()) return {};
  if (alone()) {
    move(all, mine);
    return {};
  }
  LedgerCall call = record(Op::kReduceScatter, all.bytes());
  if (!all.device.is_cpu()) return {device_transport().begin_reduce_scatter_sum(all, mine), std::move(call)};
  return {transport_->begin_reduce_scatter_sum(bytes_of(all).data(), data_of(mine), mine.dtype, mine.numel()),
          std::move(call)};
}

Handle Communicator::start_all_to_all(ConstView send, std::span<const std::int64_t> send_rows, View recv,
                                      std::span<const std::int64_t> recv_rows) {
  check_one_device(send, recv);
  const std::vector<std::size_t> send_bytes = bytes_of_rows(send, send_rows, size());
  const std::vector<std::size_t> recv_bytes = bytes_of_rows(recv, recv_rows, size());
  const auto self = static_cast<std::size_t>(rank_);
  HADAL_CHECK(send_rows[self] == recv_rows[self] && send_bytes[self] == recv_bytes[self],
              "rank {} sends itself {} rows ({} bytes) and expects {} ({} bytes)", rank_, send_rows[self], send_bytes[self],
              recv_rows[self], recv_bytes[self]);
  if (alone()) {
    if (send_bytes[0] > 0) move(send.rows(0, send_rows[0]), recv.rows(0, send_rows[0]));
    return {};
  }
  LedgerCall call = record(Op::kAllToAll, std::reduce(send_bytes.begin(), send_bytes.end()));
  if (!send.device.is_cpu()) return {device_transport().begin_all_to_all(send, send_bytes, recv, recv_bytes), std::move(call)};
  return {transport_->begin_all_to_all(bytes_of(send).data(), send_bytes, data_of(recv), recv_bytes), std::move(call)};
}

Handle Communicator::start_send(ConstView values, int to, int tag) {
  check_message(to, tag);
  LedgerCall call = record_message(Op::kSend, values.bytes(), to, tag);
  if (!values.device.is_cpu()) return {device_transport().begin_send(values, to, tag), std::move(call)};
  return {transport_->begin_send(bytes_of(values), to, tag), std::move(call)};
}

Handle Communicator::start_receive(View values, int from, int tag) {
  check_message(from, tag);
  LedgerCall call = record_message(Op::kReceive, values.bytes(), from, tag);
  if (!values.device.is_cpu()) return {device_transport().begin_receive(values, from, tag), std::move(call)};
  return {transport_->begin_receive(std::span(data_of(values), values.bytes()), from, tag), std::move(call)};
}

Handle Communicator::start_all_reduce_sum(View values) {
  check_summable(values);
  if (alone() || values.empty()) return {};
  LedgerCall call = record(Op::kAllReduce, values.bytes());
  if (!values.device.is_cpu()) return {device_transport().begin_all_reduce_sum(values), std::move(call)};
  return {transport_->begin_all_reduce_sum(data_of(values), values.dtype, values.numel()), std::move(call)};
}

void Communicator::check_root(int root) const { HADAL_CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size()); }

void Communicator::check_message(int peer, int tag) const {
  HADAL_CHECK(peer >= 0 && peer < size() && peer != rank_, "a message between ranks {} and {} of {}", rank_, peer, size());
  HADAL_CHECK(tag >= 0, "a message with tag {}", tag);
}

}  // namespace hadal::comm
