#include "comm/nccl/check.h"

#include "comm/host_process.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::comm::nccl {
namespace {

const char* advice_for(ncclResult_t result) {
  switch (result) {
    case ncclInvalidUsage:
      return "two ranks on one device are refused: give each rank its own, or set parallel.device_transport to host";
    case ncclRemoteError:
      return "another rank has ended; its own message says why";
    default:
      return "NCCL_DEBUG=WARN tells more; NCCL_SOCKET_IFNAME names the network interface to use";
  }
}

}  // namespace

std::string message_of(ncclResult_t result, const char* call, const Place& place, ncclComm_t comm) {
  const char* const detail = ncclGetLastError(comm);
  return fmt::format("NCCL: {} of group \"{}\": {}{}{}, rank {}, host {}, device {}; {}", call, place.group, ncclGetErrorString(result),
                     detail != nullptr && *detail != '\0' ? ": " : "", detail != nullptr ? detail : "", log_rank(), this_process().host,
                     name_of(place.device), advice_for(result));
}

void check(ncclResult_t result, const char* call, const Place& place, ncclComm_t comm) {
  if (result != ncclSuccess) throw Error(ExitCode::kIo, message_of(result, call, place, comm));
}

void check(cudaError_t result, const char* call, const Place& place) {
  if (result == cudaSuccess) return;
  throw Error(ExitCode::kIo, fmt::format("CUDA: {} for group \"{}\": {} ({}), rank {}, host {}, device {}; an earlier operation may be the cause: "
                                         "CUDA_LAUNCH_BLOCKING=1 shows at which it happens",
                                         call, place.group, cudaGetErrorString(result), cudaGetErrorName(result), log_rank(),
                                         this_process().host, name_of(place.device)));
}

}  // namespace hadal::comm::nccl
