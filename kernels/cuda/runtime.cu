// The CUDA device runtime behind core/device_backend.h: memory, the compute stream, copies through pinned staging.
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>

#include "core/device_backend.h"
#include "core/error.h"
#include "core/log.h"
#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  int device = -1;
  cudaGetDevice(&device);
  const char* const advice = status == cudaErrorNoKernelImageForDevice ? "; build with -DCMAKE_CUDA_ARCHITECTURES of this device"
                             : status == cudaErrorMemoryAllocation     ? "; use a smaller batch, sequence or model"
                                                                       : "; CUDA_LAUNCH_BLOCKING=1 shows at which op it happens";
  throw Error(ExitCode::kIo, fmt::format("CUDA: {}: {} ({}), rank {}, device {}{}", call, cudaGetErrorString(status), cudaGetErrorName(status),
                                         log_rank(), device, advice));
}

int num_multiprocessors(int index) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, index), "cudaDeviceGetAttribute");
  return count;
}

namespace {

/// Pinned memory through which host memory of any kind is copied without holding up the host: one buffer is filled while the
/// device reads the others.
class Staging {
 public:
  void to_device(cudaStream_t stream, char* to, const char* from, std::size_t bytes) {
    const std::scoped_lock lock(mutex_);
    for (std::size_t done = 0; done < bytes;) {
      Buffer& buffer = next();
      const std::size_t part = std::min(bytes - done, kBytes);
      std::memcpy(buffer.memory, from + done, part);
      check(cudaMemcpyAsync(to + done, buffer.memory, part, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync to the device");
      check(cudaEventRecord(buffer.read, stream), "cudaEventRecord");
      done += part;
    }
  }

  void to_host(cudaStream_t stream, char* to, const char* from, std::size_t bytes) {
    const std::scoped_lock lock(mutex_);
    std::array<std::size_t, kBuffers> parts{};
    // A round over the buffers: all are on their way before the first is waited for.
    for (std::size_t done = 0; done < bytes;) {
      const std::size_t start = next_;
      std::size_t used = 0, sent = done;
      for (; used < kBuffers && sent < bytes; ++used) {
        Buffer& buffer = next();
        parts[used] = std::min(bytes - sent, kBytes);
        check(cudaMemcpyAsync(buffer.memory, from + sent, parts[used], cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync to the host");
        check(cudaEventRecord(buffer.read, stream), "cudaEventRecord");
        sent += parts[used];
      }
      for (std::size_t i = 0; i < used; ++i) {
        const Buffer& buffer = buffers_[(start + i) % kBuffers];
        check(cudaEventSynchronize(buffer.read), "cudaEventSynchronize");
        std::memcpy(to + done, buffer.memory, parts[i]);
        done += parts[i];
      }
    }
  }

 private:
  static constexpr std::size_t kBytes = std::size_t{4} << 20;
  static constexpr std::size_t kBuffers = 4;
  struct Buffer {
    void* memory = nullptr;
    cudaEvent_t read = nullptr;
  };

  /// The next buffer, once the device has done with it.
  Buffer& next() {
    Buffer& buffer = buffers_[next_];
    next_ = (next_ + 1) % kBuffers;
    if (buffer.memory == nullptr) {
      check(cudaHostAlloc(&buffer.memory, kBytes, cudaHostAllocDefault), "cudaHostAlloc");
      check(cudaEventCreateWithFlags(&buffer.read, cudaEventDisableTiming), "cudaEventCreate");
    } else {
      check(cudaEventSynchronize(buffer.read), "cudaEventSynchronize");
    }
    return buffer;
  }

  std::mutex mutex_;
  std::array<Buffer, kBuffers> buffers_{};
  std::size_t next_ = 0;
};

struct PerDevice {
  cudaStream_t compute = nullptr;
  Staging staging;
};

void use(int index) { check(cudaSetDevice(index), "cudaSetDevice"); }

// Leaked on purpose: tensors with static lifetime may outlive any order of destruction.
PerDevice& state_of(int index) {
  static auto* const mutex = new std::mutex;
  static auto* const devices = new std::map<int, PerDevice>;
  const std::scoped_lock lock(*mutex);
  PerDevice& state = (*devices)[index];
  if (state.compute == nullptr) {
    use(index);
    check(cudaStreamCreateWithFlags(&state.compute, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  return state;
}

int num_devices() noexcept {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void* allocate(int index, std::size_t bytes) {
  use(index);
  void* block = nullptr;
  const cudaError_t status = cudaMalloc(&block, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is answered here
    return nullptr;
  }
  check(status, "cudaMalloc");
  return block;
}

void release(int index, void* block) noexcept {
  // Waits for the device, so nothing in flight loses its memory. At the end of the process the driver may already be gone.
  if (cudaSetDevice(index) == cudaSuccess) cudaFree(block);
}

void* compute_stream(int index) { return state_of(index).compute; }

bool is_pageable(const void* address) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, address), "cudaPointerGetAttributes");
  return attributes.type == cudaMemoryTypeUnregistered;
}

void refuse_in_graph(cudaStream_t stream, const char* what) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  HADAL_CHECK(status == cudaStreamCaptureStatusNone, "{} while a graph is recorded", what);
}

void copy(int index, void* stream, void* to, const void* from, std::size_t bytes) {
  use(index);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (is_pageable(from) || is_pageable(to)) refuse_in_graph(queue, "a copy between host and device");
  if (is_pageable(from)) {
    state_of(index).staging.to_device(queue, static_cast<char*>(to), static_cast<const char*>(from), bytes);
  } else if (is_pageable(to)) {
    state_of(index).staging.to_host(queue, static_cast<char*>(to), static_cast<const char*>(from), bytes);
  } else {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, queue), "cudaMemcpyAsync");
  }
}

void zero(int index, void* stream, void* at, std::size_t bytes) {
  use(index);
  check(cudaMemsetAsync(at, 0, bytes, static_cast<cudaStream_t>(stream)), "cudaMemsetAsync");
}

void synchronize(int index, void* stream) {
  use(index);
  refuse_in_graph(static_cast<cudaStream_t>(stream), "a wait for the device");
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "cudaStreamSynchronize");
}

// Relaxed: the pool may have to ask the driver for a block, which a stricter mode takes for an error.
void begin_graph(int index, void* stream) {
  use(index);
  check(cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
}

void* end_graph(int index, void* stream) {
  use(index);
  cudaGraph_t recorded = nullptr;
  cudaGraphExec_t ready = nullptr;
  // A call that may not be recorded, or a failure in between, has spoilt the recording already: null says so.
  if (cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &recorded) != cudaSuccess || recorded == nullptr) {
    cudaGetLastError();
    return nullptr;
  }
  const cudaError_t status = cudaGraphInstantiate(&ready, recorded, 0);
  cudaGraphDestroy(recorded);
  check(status, "cudaGraphInstantiate");
  return ready;
}

void launch_graph(int index, void* stream, void* graph) {
  use(index);
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(stream)), "cudaGraphLaunch");
}

void destroy_graph(void* graph) noexcept { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

void begin_range(const char* name) noexcept { nvtxRangePushA(name); }

void end_range() noexcept { nvtxRangePop(); }

const DeviceBackend backend{num_devices, allocate, release, compute_stream, copy, zero, synchronize, begin_graph, end_graph, launch_graph, destroy_graph,
                            begin_range, end_range};
const RegisterDeviceBackend registered{backend};

}  // namespace
}  // namespace hadal::kernels::cuda
