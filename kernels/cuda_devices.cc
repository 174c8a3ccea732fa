#include "kernels/cuda_devices.h"

namespace hadal::kernels {
namespace {

constinit CudaStatusQuery g_query = nullptr;

}  // namespace

RegisterCudaStatus::RegisterCudaStatus(CudaStatusQuery query) { g_query = query; }

CudaStatus cuda_status() { return g_query == nullptr ? CudaStatus{} : g_query(); }

}  // namespace hadal::kernels
