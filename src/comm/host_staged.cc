#include "comm/host_staged.h"

#include <numeric>
#include <utility>

#include "core/copy.h"

namespace hadal::comm {
namespace {

std::span<const std::byte> bytes_of(const Tensor& tensor) { return {static_cast<const std::byte*>(tensor.view().data), tensor.bytes()}; }
std::byte* data_of(Tensor& tensor) { return static_cast<std::byte*>(tensor.view().data); }

/// Waits for what the compute stream has to do until here.
Tensor staged(ConstView values) {
  Stream stream = stream_of(values.device);
  return to_host(stream, values);
}

/// The first `bytes` of a view.
View first(View values, std::size_t bytes) { return {values.data, DType::kU8, Shape{static_cast<std::int64_t>(bytes)}, values.device}; }
ConstView first(ConstView values, std::size_t bytes) {
  return {values.data, DType::kU8, Shape{static_cast<std::int64_t>(bytes)}, values.device};
}

/// The host's work, and where its result goes afterwards.
class StagedWork final : public Work {
 public:
  /// `sent` and `received` stay until the host's work is done; `received` then goes to `to`, unless that is empty.
  StagedWork(Tensor sent, Tensor received, View to) : sent_(std::move(sent)), received_(std::move(received)), to_(to) {}

  Tensor& received() { return received_; }
  const Tensor& sent() const { return sent_; }
  void start(std::unique_ptr<Work> work) { work_ = std::move(work); }

  void wait() override {
    work_->wait();
    if (to_.empty()) return;
    Stream stream = stream_of(to_.device);
    copy(stream, received_, to_);
  }
  void abandon() override { work_->abandon(); }

 private:
  Tensor sent_, received_;
  View to_;
  std::unique_ptr<Work> work_;
};

}  // namespace

std::unique_ptr<Work> HostStaged::begin_all_gather(ConstView mine, View all) {
  auto work = std::make_unique<StagedWork>(staged(mine), Tensor::empty(all.shape, all.dtype), all);
  work->start(host_.begin_all_gather(bytes_of(work->sent()), data_of(work->received())));
  return work;
}

std::unique_ptr<Work> HostStaged::begin_reduce_scatter_sum(ConstView all, View mine) {
  auto work = std::make_unique<StagedWork>(staged(all), Tensor::empty(mine.shape, mine.dtype), mine);
  work->start(host_.begin_reduce_scatter_sum(bytes_of(work->sent()).data(), data_of(work->received()), mine.dtype, mine.numel()));
  return work;
}

std::unique_ptr<Work> HostStaged::begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                                   std::span<const std::size_t> recv_bytes) {
  const std::size_t sent = std::reduce(send_bytes.begin(), send_bytes.end());
  const View to = first(recv, std::reduce(recv_bytes.begin(), recv_bytes.end()));
  auto work = std::make_unique<StagedWork>(staged(first(send, sent)), Tensor::empty(to.shape, to.dtype), to);
  work->start(host_.begin_all_to_all(bytes_of(work->sent()).data(), send_bytes, data_of(work->received()), recv_bytes));
  return work;
}

std::unique_ptr<Work> HostStaged::begin_send(ConstView values, int to, int tag) {
  auto work = std::make_unique<StagedWork>(staged(values), Tensor(), View{});
  work->start(host_.begin_send(bytes_of(work->sent()), to, tag));
  return work;
}

std::unique_ptr<Work> HostStaged::begin_receive(View values, int from, int tag) {
  auto work = std::make_unique<StagedWork>(Tensor(), Tensor::empty(values.shape, values.dtype), values);
  work->start(host_.begin_receive({data_of(work->received()), values.bytes()}, from, tag));
  return work;
}

std::unique_ptr<Work> HostStaged::begin_all_reduce_sum(View values) {
  auto work = std::make_unique<StagedWork>(Tensor(), staged(values), values);
  work->start(host_.begin_all_reduce_sum(data_of(work->received()), values.dtype, values.numel()));
  return work;
}

void HostStaged::broadcast(View values, int root) {
  Tensor bytes = staged(values);
  host_.broadcast({data_of(bytes), values.bytes()}, root);
  Stream stream = stream_of(values.device);
  copy(stream, bytes, values);
}

}  // namespace hadal::comm
