// A kernel that is launched while the one before it in the stream still runs (programmatic dependent launch): its blocks come to the
// multiprocessors as room is made, and begin as soon as all is written that they read, without the pause between two kernels.
#pragma once

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {

/// In the earlier kernel, by all its blocks: from here on the later one may come. Says nothing about what was written.
__device__ inline void let_next_kernel_come() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
/// In the later kernel, before it reads or writes memory: until the earlier one has ended, and with it all before that.
__device__ inline void await_kernel_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/// kernel<<<grid, threads, shared_bytes, stream>>>(args...) for a kernel that begins with await_kernel_before(). In a graph that is being
/// recorded, in the ordinary way.
template <class... Params, class... Args>
void launch_early(Stream& stream, const char* op, void (*kernel)(Params...), dim3 grid, dim3 threads, std::size_t shared_bytes, Args&&... args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = native(stream);
  config.attrs = &early;
  cudaStreamCaptureStatus recorded{};
  check(cudaStreamIsCapturing(config.stream, &recorded), "cudaStreamIsCapturing");
  config.numAttrs = recorded == cudaStreamCaptureStatusNone ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), op);
}

}  // namespace hadal::kernels::cuda
