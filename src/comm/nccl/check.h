// Errors of NCCL, and of the CUDA runtime around it: call, group, the library's own words, rank, host, device, what to try.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <string>

#include "core/device.h"

namespace hadal::comm::nccl {

/// Where an error happened, for the message.
struct Place {
  std::string group;
  Device device;
};

/// What a failed call means; `comm` may be null. For exceptions, and for the watchdog, which has nobody to throw to.
std::string message_of(ncclResult_t result, const char* call, const Place& place, ncclComm_t comm);

/// Throws Error (74) unless the call succeeded.
void check(ncclResult_t result, const char* call, const Place& place, ncclComm_t comm = nullptr);
void check(cudaError_t result, const char* call, const Place& place);

}  // namespace hadal::comm::nccl
