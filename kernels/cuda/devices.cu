#include <cuda_runtime.h>

#include "kernels/cuda_devices.h"

namespace hadal::kernels {
namespace {

CudaStatus query() {
  CudaStatus status;
  status.built = true;
  status.toolkit = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    status.problem = cudaGetErrorString(error);
    return status;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    status.devices.push_back({properties.name, properties.major, properties.minor, static_cast<std::int64_t>(properties.totalGlobalMem)});
  }
  return status;
}

const RegisterCudaStatus registered{query};

}  // namespace
}  // namespace hadal::kernels
