#include "kernels/cuda/heads_map.h"

#include <cuda_runtime.h>

#include "kernels/cuda/attention_products.cuh"
#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda::hopper {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                            const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/// The driver's function, found at run time so that nothing links against the driver (machines without a GPU build too).
Encode encode() {
  static const Encode found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result), "cudaGetDriverEntryPoint");
    HADAL_CHECK(result == cudaDriverEntryPointSuccess && function != nullptr, "the CUDA driver has no cuTensorMapEncodeTiled: update it");
    return reinterpret_cast<Encode>(function);
  }();
  return found;
}

}  // namespace

bool can_map(const ConstHeads& x) {
  const auto sixteen = [](std::int64_t elements) { return elements % 8 == 0; };
  return x.dtype == DType::kBf16 && reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && sixteen(x.width) && sixteen(x.token_stride) &&
         (x.heads == 1 || sixteen(x.head_stride)) && x.width > 0 && x.tokens > 0;
}

CUtensorMap heads_map(const ConstHeads& x, std::int64_t batch, int rows) {
  const std::int64_t tokens = x.tokens / batch;
  const auto bytes = [](std::int64_t elements) { return static_cast<cuuint64_t>(elements) * 2; };
  const cuuint64_t dims[] = {static_cast<cuuint64_t>(x.width), static_cast<cuuint64_t>(x.heads), static_cast<cuuint64_t>(tokens),
                             static_cast<cuuint64_t>(batch)};
  const cuuint64_t strides[] = {bytes(x.heads == 1 ? x.token_stride : x.head_stride), bytes(x.token_stride), bytes(tokens * x.token_stride)};
  const cuuint32_t box[] = {kChunkColumns, 1, static_cast<cuuint32_t>(rows), 1}, steps[] = {1, 1, 1, 1};
  CUtensorMap map{};
  const CUresult result =
      encode()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(x.data), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
               CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  HADAL_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: {} for heads [{}, {}, {}], strides {}, {}", static_cast<int>(result), x.tokens,
              x.heads, x.width, x.token_stride, x.head_stride);
  return map;
}

}  // namespace hadal::kernels::cuda::hopper
