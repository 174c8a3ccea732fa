// The CUDA devices of this machine, as the CUDA runtime sees them. A build without the CUDA backend says so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hadal::kernels {

struct CudaDevice {
  std::string name;
  int major = 0;  ///< compute capability
  int minor = 0;
  std::int64_t memory_bytes = 0;
};

struct CudaStatus {
  bool built = false;       ///< the backend is in this program
  std::string toolkit;      ///< "13.0"; empty when not built
  std::string problem;      ///< what the runtime answered instead of devices; empty when it answered
  std::vector<CudaDevice> devices;
};

CudaStatus cuda_status();

/// Filled by kernels/cuda/devices.cu in a build with the backend.
using CudaStatusQuery = CudaStatus (*)();
struct RegisterCudaStatus {
  explicit RegisterCudaStatus(CudaStatusQuery query);
};

}  // namespace hadal::kernels
