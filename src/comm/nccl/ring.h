// One NCCL communicator and the stream on which it works. Each has a stream of its own, since two operations of one stream wait for
// each other, and ranks need not start those of different groups in the same order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/handle.h"
#include "comm/nccl/check.h"

namespace hadal::comm::nccl {

class Ring : public std::enable_shared_from_this<Ring> {
 public:
  /// Collective over `size` ranks, which pass the same id. `name` is for messages.
  Ring(const ncclUniqueId& id, int rank, int size, Device device, std::string name);
  /// Collective, unless an exception unwinds the stack: then what is under way is given up.
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  int rank() const { return rank_; }
  const Place& place() const { return place_; }

  /// Runs `enqueue` on the stream, after what the compute stream has been given so far. The host waits for nothing.
  std::unique_ptr<Work> begin(const char* call, const std::function<ncclResult_t(ncclComm_t, cudaStream_t)>& enqueue);
  /// Makes the compute stream wait for `done`, an event of begin(), and takes it back.
  void end(cudaEvent_t done);

  /// What went wrong on the device or between hosts; "" when nothing did. From any thread.
  std::string failure() const;

 private:
  cudaEvent_t new_event();
  cudaStream_t compute_stream() const;

  Place place_;
  int rank_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t ready_ = nullptr;
  std::vector<cudaEvent_t> free_;
};

/// Of the communicators of this process, the first that has failed: its message, or "".
std::string failure_of_any();

}  // namespace hadal::comm::nccl
