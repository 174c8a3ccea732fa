#include "comm/nccl/ring.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <utility>

#include "core/copy.h"

namespace hadal::comm::nccl {
namespace {

/// All that live, for the watchdog's thread.
struct Living {
  std::mutex mutex;
  std::vector<const Ring*> rings;
};
Living& living() {
  static auto* const all = new Living;
  return *all;
}

class RingWork final : public Work {
 public:
  RingWork(std::shared_ptr<Ring> ring, cudaEvent_t done) : ring_(std::move(ring)), done_(done) {}
  void wait() override { ring_->end(done_); }
  /// The process ends: what is under way writes to memory that nobody reads any more.
  void abandon() override {}

 private:
  std::shared_ptr<Ring> ring_;
  cudaEvent_t done_;
};

}  // namespace

Ring::Ring(const ncclUniqueId& id, int rank, int size, Device device, std::string name)
    : place_{std::move(name), device}, rank_(rank) {
  check(cudaSetDevice(device.index), "cudaSetDevice", place_);
  check(ncclCommInitRank(&comm_, size, id, rank), "ncclCommInitRank", place_);
  // Ahead of compute kernels that are ready at the same time: other ranks wait for this one.
  int least = 0, most = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &most), "cudaDeviceGetStreamPriorityRange", place_);
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, most), "cudaStreamCreateWithPriority", place_);
  ready_ = new_event();
  const std::scoped_lock lock(living().mutex);
  living().rings.push_back(this);
}

Ring::~Ring() {
  {
    const std::scoped_lock lock(living().mutex);
    std::erase(living().rings, this);
  }
  cudaSetDevice(place_.device.index);
  if (std::uncaught_exceptions() > 0) {
    ncclCommAbort(comm_);
  } else {
    cudaStreamSynchronize(stream_);
    ncclCommDestroy(comm_);
  }
  cudaEventDestroy(ready_);
  for (const cudaEvent_t event : free_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

cudaEvent_t Ring::new_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate", place_);
  return event;
}

cudaStream_t Ring::compute_stream() const { return static_cast<cudaStream_t>(stream_of(place_.device).native()); }

std::unique_ptr<Work> Ring::begin(const char* call, const std::function<ncclResult_t(ncclComm_t, cudaStream_t)>& enqueue) {
  check(cudaSetDevice(place_.device.index), "cudaSetDevice", place_);
  check(cudaEventRecord(ready_, compute_stream()), "cudaEventRecord", place_);
  check(cudaStreamWaitEvent(stream_, ready_, 0), "cudaStreamWaitEvent", place_);
  check(enqueue(comm_, stream_), call, place_, comm_);
  if (free_.empty()) free_.push_back(new_event());
  const cudaEvent_t done = free_.back();
  free_.pop_back();
  check(cudaEventRecord(done, stream_), "cudaEventRecord", place_);
  return std::make_unique<RingWork>(shared_from_this(), done);
}

void Ring::end(cudaEvent_t done) {
  check(cudaStreamWaitEvent(compute_stream(), done, 0), "cudaStreamWaitEvent", place_);
  free_.push_back(done);
}

std::string Ring::failure() const {
  ncclResult_t result = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
  if (asked != ncclSuccess) result = asked;
  if (result == ncclSuccess || result == ncclInProgress) return "";
  return message_of(result, "an operation under way", place_, comm_);
}

std::string failure_of_any() {
  const std::scoped_lock lock(living().mutex);
  for (const Ring* const ring : living().rings) {
    if (std::string failure = ring->failure(); !failure.empty()) return failure;
  }
  return "";
}

}  // namespace hadal::comm::nccl
