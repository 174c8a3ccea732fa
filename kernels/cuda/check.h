// Errors of CUDA calls and launches: call or op, the runtime's own words, rank and device (design.md, Errors: outside).
#pragma once

#include <cuda_runtime.h>

#include "core/stream.h"

namespace hadal::kernels::cuda {

/// Throws Error (74) unless `status` is success. An asynchronous failure is found by a later call: set CUDA_LAUNCH_BLOCKING=1 to
/// see whose it is.
void check(cudaError_t status, const char* call);

/// After a kernel launch: a launch that was refused names the op. Costs no synchronisation.
inline void check_launch(const char* op) { check(cudaGetLastError(), op); }

inline cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

/// Multiprocessors of a device: what a persistent grid is sized by.
int num_multiprocessors(int index);

/// Lets `kernel` use `bytes` of dynamic shared memory (more than 48 KiB has to be asked for). Cheap to call before each launch.
template <class Kernel>
void allow_shared_memory(Kernel kernel, std::size_t bytes, const char* op) {
  if (bytes > 48 * 1024) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), op);
}

}  // namespace hadal::kernels::cuda
